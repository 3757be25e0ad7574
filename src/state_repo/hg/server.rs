//! The Mercurial command server: one `hg` process that answers many commands.
//!
//! Starting Python costs 100 to 200 ms, a command in a running server 3 ms. The protocol is that of
//! `mercurial/commandserver.py` (the project's wiki describes it under "CommandServer"): the server writes frames of a
//! channel letter, a big-endian length and that many bytes; the client writes `runcommand`, a length and the
//! arguments separated by NUL.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::process::{Cmd, Running};

/// More than any frame that Mercurial sends: one holds at most one file. What claims to be longer is the text of an
/// extension that prints to standard output.
const FRAME_LIMIT_BYTES: u32 = 1 << 30;

/// A running `hg serve --cmdserver pipe`.
#[derive(Debug)]
pub(super) struct CommandServer {
    running: Running,
}

/// What one command answered.
#[derive(Debug)]
pub(super) struct Reply {
    /// The exit status that the command would have had as a process.
    pub(super) code: i32,
    /// Its standard output.
    pub(super) output: Vec<u8>,
    /// Its standard error.
    pub(super) errors: String,
}

/// A frame from the server.
enum Frame {
    Output(Vec<u8>),
    Errors(Vec<u8>),
    Result(i32),
    /// The server asks for input; we have none.
    Input,
    /// Debug messages, and optional channels of later versions, which the protocol allows to be ignored.
    Other,
}

impl CommandServer {
    /// Starts `command`, which has to be a command server, and reads its greeting.
    pub(super) async fn start(command: Cmd) -> Result<Self> {
        let mut server = Self { running: command.start()? };
        match server.read_frame().await {
            Ok(Frame::Output(greeting)) if contains(&greeting, b"runcommand") => Ok(server),
            Ok(_) => Err(broken("the command server's greeting does not offer runcommand")),
            Err(error) => Err(server.dead(error).await),
        }
    }

    /// Runs one command. When this fails, or its future is dropped, the server must not be used again:
    /// the rest of the answer would be taken for that of the next command.
    pub(super) async fn run(&mut self, args: &[&str]) -> Result<Reply> {
        self.send(args).await?;
        let mut reply = Reply { code: 0, output: Vec::new(), errors: String::new() };
        loop {
            match self.read_frame().await? {
                Frame::Output(bytes) if reply.output.is_empty() => reply.output = bytes,
                Frame::Output(bytes) => reply.output.extend_from_slice(&bytes),
                Frame::Errors(bytes) => reply.errors.push_str(&String::from_utf8_lossy(&bytes)),
                Frame::Input => self.write(&0_u32.to_be_bytes()).await?,
                Frame::Other => {}
                Frame::Result(code) => {
                    reply.code = code;
                    reply.errors.truncate(reply.errors.trim_end().len());
                    return Ok(reply);
                }
            }
        }
    }

    /// Ends the server; `error` gets what it said last as its source.
    pub(super) async fn dead(self, error: Error) -> Error {
        match self.running.finish().await {
            Ok(finished) if !finished.stderr.is_empty() => error.source(finished.stderr),
            _ => error,
        }
    }

    /// Asks the server to end and waits for it.
    pub(super) async fn close(self) {
        // Nothing is lost when it has to be killed: it only reads.
        let _ = self.running.finish().await;
    }

    async fn send(&mut self, args: &[&str]) -> Result<()> {
        if args.iter().any(|arg| arg.contains('\0')) {
            return Err(Error::new(ErrorKind::Bug, "an argument for hg holds a NUL"));
        }
        let joined = args.join("\0");
        let length = u32::try_from(joined.len()).context(ErrorKind::Bug, "too many arguments for one hg command")?;
        let mut request = b"runcommand\n".to_vec();
        request.extend_from_slice(&length.to_be_bytes());
        request.extend_from_slice(joined.as_bytes());
        self.write(&request).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let pipe = self.running.stdin()?;
        pipe.write_all(bytes).await.context(ErrorKind::Repository, "the hg command server has ended")?;
        pipe.flush().await.context(ErrorKind::Repository, "the hg command server has ended")
    }

    async fn read_frame(&mut self) -> Result<Frame> {
        let pipe = self.running.stdout();
        let ended = "the hg command server has ended";
        let mut header = [0_u8; 5];
        pipe.read_exact(&mut header).await.context(ErrorKind::Repository, ended)?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        match header[0] {
            b'I' | b'L' => return Ok(Frame::Input),
            b'o' | b'e' | b'r' | b'd' => {}
            // A channel with a small letter is optional.
            b'a'..=b'z' if length <= FRAME_LIMIT_BYTES => {}
            _ => return Err(broken("hg writes to its standard output what is not its protocol")),
        }
        if length > FRAME_LIMIT_BYTES {
            return Err(broken("hg announces a frame of more than 1 GiB"));
        }
        let mut body = vec![0_u8; length as usize];
        pipe.read_exact(&mut body).await.context(ErrorKind::Repository, ended)?;
        match header[0] {
            b'o' => Ok(Frame::Output(body)),
            b'e' => Ok(Frame::Errors(body)),
            b'r' => match <[u8; 4]>::try_from(body.as_slice()) {
                Ok(code) => Ok(Frame::Result(i32::from_be_bytes(code))),
                Err(_) => Err(broken("hg sends an exit status that is not four bytes long")),
            },
            _ => Ok(Frame::Other),
        }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn broken(message: &str) -> Error {
    Error::new(ErrorKind::Repository, message).hint(
        "an extension in the clone's .hg/hgrc may print to standard output: switch the extensions off there one by one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends `frames` (a `printf` format) and then echoes nothing.
    async fn scripted(frames: &str) -> Result<Reply> {
        let script = format!("printf 'o\\0\\0\\0\\012runcommand{frames}'; cat >/dev/null");
        let mut server = CommandServer::start(Cmd::new("sh").args(["-c", &script])).await?;
        server.run(&["x"]).await
    }

    #[tokio::test]
    async fn channels_are_kept_apart_and_input_requests_end() {
        let frames = "o\\0\\0\\0\\002abd\\0\\0\\0\\001DL\\0\\0\\020\\0e\\0\\0\\0\\003no\\nx\\0\\0\\0\\001?o\\0\\0\\0\\001cr\\0\\0\\0\\004\\0\\0\\0\\001";
        let reply = scripted(frames).await.unwrap();
        assert_eq!((reply.code, reply.output.as_slice(), reply.errors.as_str()), (1, b"abc".as_slice(), "no"));
    }

    #[tokio::test]
    async fn text_among_the_frames_is_not_taken_for_one() {
        let error = scripted("Hello from an extension").await.unwrap_err();
        assert_eq!(error.message(), "hg writes to its standard output what is not its protocol");
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_says_why() {
        let cmd = Cmd::new("sh").args(["-c", "echo 'abort: repository requires features unknown' >&2; exit 255"]);
        let error = CommandServer::start(cmd).await.unwrap_err();
        assert!(error.one_line().ends_with("abort: repository requires features unknown"), "{}", error.one_line());
    }
}
