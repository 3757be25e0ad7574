//! How much of what is large may be fetched ahead of its use.
//!
//! A dump takes its room when it begins to come in and gives it back when its table is loaded and the file is
//! gone. A batch that finds too little room stops in the middle and goes on when there is enough again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Room for so many bytes.
#[derive(Debug)]
pub(super) struct Room {
    bytes: u64,
    held: watch::Sender<Held>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Held {
    bytes: u64,
    files: usize,
}

/// The room of one file, given back at the latest when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    bytes: u64,
    is_left: AtomicBool,
}

impl Room {
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { bytes, held: watch::Sender::default() })
    }

    /// Room for a file of `bytes`, when there is enough; one that is larger than all of it may come alone.
    pub(super) fn take(self: &Arc<Self>, bytes: u64) -> Option<Arc<Place>> {
        let taken = self.held.send_if_modified(|held| {
            let fits = held.files == 0 || held.bytes.saturating_add(bytes) <= self.bytes;
            if fits {
                held.bytes = held.bytes.saturating_add(bytes);
                held.files += 1;
            }
            fits
        });
        taken.then(|| self.place(bytes))
    }

    /// Room for a file that is here already, because it came in before its batch could be stopped.
    pub(super) fn take_anyway(self: &Arc<Self>, bytes: u64) -> Arc<Place> {
        self.held.send_modify(|held| {
            held.bytes = held.bytes.saturating_add(bytes);
            held.files += 1;
        });
        self.place(bytes)
    }

    fn place(self: &Arc<Self>, bytes: u64) -> Arc<Place> {
        Arc::new(Place { room: Arc::clone(self), bytes, is_left: AtomicBool::new(false) })
    }

    /// Waits until there is room for a file of `bytes`, and half of the room at least, so that what goes on then
    /// goes on for a while. Somebody else may be faster.
    pub(super) async fn has_room_for(&self, bytes: u64) {
        let wanted = bytes.max(self.bytes / 2);
        let fits = |held: &Held| held.files == 0 || held.bytes.saturating_add(wanted) <= self.bytes;
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.held.subscribe().wait_for(fits).await;
    }

    /// Waits until nothing is held; false when nothing was, so that waiting frees no disk.
    pub(super) async fn is_empty(&self) -> bool {
        let mut held = self.held.subscribe();
        if held.borrow_and_update().files == 0 {
            return false;
        }
        let _ = held.wait_for(|held| held.files == 0).await;
        true
    }
}

impl Place {
    /// Gives the room back.
    pub(super) fn leave(&self) {
        if !self.is_left.swap(true, Ordering::Relaxed) {
            self.room.held.send_modify(|held| {
                held.bytes = held.bytes.saturating_sub(self.bytes);
                held.files = held.files.saturating_sub(1);
            });
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn room_is_taken_up_to_its_end_and_given_back_once() {
        let room = Room::new(10);
        let (first, second) = (room.take(6).unwrap(), room.take(4).unwrap());
        assert!(room.take(1).is_none());
        second.leave();
        drop(second);
        assert!(room.has_room_for(1).now_or_never().is_none(), "six of ten are held");
        assert!(room.take(5).is_none());
        drop(first);
        let third = room.take(4).unwrap();
        room.has_room_for(1).await;
        assert!(room.has_room_for(7).now_or_never().is_none());
        drop(third);
        room.has_room_for(7).await;
        assert!(!room.is_empty().await, "nothing is held");
    }

    #[tokio::test]
    async fn what_is_larger_than_the_room_comes_alone() {
        let room = Room::new(10);
        let large = room.take(100).unwrap();
        assert!(room.take(0).is_none());
        let (freed, ()) = tokio::join!(room.is_empty(), async { drop(large) });
        assert!(freed);
        assert!(room.take(10).is_some());
    }
}
