//! The thread that starts all children.
//!
//! `PR_SET_PDEATHSIG` (prctl(2)) is about the *thread* that has forked: the kernel sends the signal when that thread
//! ends, although the process lives on. Threads of a runtime come and go: a worker that blocks hands its tasks to another thread
//! and ends when nothing has asked for it for some seconds. So children are forked by one thread, which ends with the
//! process and never before.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};

use tokio::process::{Child, Command};
use tokio::runtime::Handle;

/// A child that is to be started.
struct Order {
    command: Command,
    /// The runtime that is to watch the child and its pipes.
    runtime: Handle,
    answer: SyncSender<Started>,
}

/// Or what the runtime panicked with.
type Started = Result<io::Result<Child>, Box<dyn Any + Send>>;

/// Starts the child, which the runtime of the caller watches. Blocks, as any `fork` does, until it runs its program.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    let (answer, started) = sync_channel(1);
    let order = Order { command, runtime: Handle::current(), answer };
    orders()?.send(order).map_err(|_| gone())?;
    match started.recv().map_err(|_| gone())? {
        Ok(child) => child,
        Err(panic) => resume_unwind(panic),
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts programs is gone")
}

/// The way to the thread, which is started with the first child.
fn orders() -> io::Result<&'static Sender<Order>> {
    static ORDERS: OnceLock<Sender<Order>> = OnceLock::new();
    if let Some(orders) = ORDERS.get() {
        return Ok(orders);
    }
    let (orders, waiting) = channel::<Order>();
    std::thread::Builder::new().name("children".to_owned()).spawn(move || {
        for Order { mut command, runtime, answer } in waiting {
            let _inside = runtime.enter();
            let started = catch_unwind(AssertUnwindSafe(|| command.spawn()));
            // Nobody waits who has not asked.
            let _ = answer.send(started);
        }
    })?;
    // Where two come first at the same time, the thread of the one that is not kept ends without having forked.
    Ok(ORDERS.get_or_init(|| orders))
}
