//! exec and attach over a WebSocket: its channels become the streams of a SPDY connection to the kubelet.

use super::spdy::{self, Frame, Writer};
use super::upgrade::Failure;
use super::websocket::socket;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// The first byte of every message.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5 only: the client closes the channel that follows.
const CLOSE: u8 = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V5,
}

impl Version {
    pub(super) fn protocol(self) -> &'static str {
        match self {
            Self::V4 => "v4.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
        }
    }
}

/// The streams of a session: channel, number and name, in the order in which they are opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Streams(Vec<(u8, u32, &'static str)>);

impl Streams {
    /// Those that the query of the kubelet's path asks for.
    pub(super) fn of(path: &str) -> Self {
        let query = path.split_once('?').map_or("", |(_, query)| query);
        let has = |flag: &str| query.split('&').any(|q| q == flag);
        let tty = has("tty=1");
        let wanted = [
            (ERROR, "error", true),
            (STDIN, "stdin", has("input=1")),
            (STDOUT, "stdout", has("output=1")),
            // A terminal has one output.
            (STDERR, "stderr", has("error=1") && !tty),
            (RESIZE, "resize", tty),
        ];
        let mut number = 1;
        let mut streams = Vec::new();
        for (channel, name, _) in wanted.into_iter().filter(|(_, _, wanted)| *wanted) {
            streams.push((channel, number, name));
            number += 2;
        }
        Self(streams)
    }

    fn stream(&self, channel: u8) -> Option<u32> {
        self.0.iter().find(|(c, _, _)| *c == channel).map(|(_, number, _)| *number)
    }

    fn channel(&self, stream: u32) -> Option<u8> {
        self.0.iter().find(|(_, number, _)| *number == stream).map(|(channel, _, _)| *channel)
    }
}

/// Carries a session until either side ends it.
pub(super) async fn run(client: Upgraded, backend: Upgraded, streams: &Streams) -> Result<(), Failure> {
    let (mut sink, mut messages) = socket(client).await.split();
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(backend));
    // Everything towards the kubelet goes through here, so that pongs never cut a frame in two.
    let (frames, mut queue) = mpsc::channel::<Bytes>(16);
    let mut open = Writer::default();
    for (_, number, name) in &streams.0 {
        writer.write_all(&open.open(*number, &[("streamtype", name)])).await?;
    }
    let sending = async {
        while let Some(frame) = queue.recv().await {
            writer.write_all(&frame).await?;
        }
        Ok::<(), Failure>(())
    };
    let pongs = frames.clone();
    let inward = async {
        while let Some(message) = messages.next().await {
            let bytes = match message? {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => break,
                _ => continue,
            };
            if let Some(frame) = inward(streams, &bytes) {
                frames.send(frame).await?;
            }
        }
        Ok::<(), Failure>(())
    };
    let outward = async {
        // Tells the client that the session stands.
        if streams.stream(STDOUT).is_some() {
            sink.send(Message::Binary(Bytes::from_static(&[STDOUT]))).await?;
        }
        let mut unfinished: Vec<u32> = streams.0.iter().map(|s| s.1).filter(|s| returns(streams, *s)).collect();
        let mut buffer = BytesMut::with_capacity(32 * 1024);
        'reading: while reader.read_buf(&mut buffer).await? > 0 {
            while let Some(frame) = spdy::take(&mut buffer)? {
                let ended = match frame {
                    Frame::Data { stream, fin, bytes } => {
                        if let Some(channel) = streams.channel(stream)
                            && !bytes.is_empty()
                        {
                            let mut message = BytesMut::with_capacity(bytes.len() + 1);
                            message.put_u8(channel);
                            message.put_slice(&bytes);
                            sink.send(Message::Binary(message.freeze())).await?;
                        }
                        fin.then_some(stream)
                    }
                    Frame::Reset { stream } => Some(stream),
                    Frame::Ping { id } => {
                        pongs.send(spdy::ping(id)).await?;
                        None
                    }
                    Frame::GoAway => break 'reading,
                    Frame::Other => None,
                };
                unfinished.retain(|stream| Some(*stream) != ended);
                if unfinished.is_empty() {
                    break 'reading;
                }
            }
            buffer.reserve(32 * 1024);
        }
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        sink.send(Message::Close(Some(normal))).await?;
        Ok::<(), Failure>(())
    };
    tokio::select! {
        ended = sending => ended,
        ended = inward => ended,
        ended = outward => ended,
    }
}

/// Streams whose end the far end tells.
fn returns(streams: &Streams, stream: u32) -> bool {
    streams.channel(stream).is_some_and(|channel| matches!(channel, STDOUT | STDERR | ERROR))
}

/// The frame for a message of the client.
fn inward(streams: &Streams, message: &[u8]) -> Option<Bytes> {
    match message {
        [CLOSE, channel, ..] => Some(spdy::data(streams.stream(*channel)?, &[], true)),
        [channel @ (STDIN | RESIZE), bytes @ ..] if !bytes.is_empty() => {
            Some(spdy::data(streams.stream(*channel)?, bytes, false))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_are_asked_for() {
        let names = |path: &str| Streams::of(path).0.iter().map(|s| s.2).collect::<Vec<_>>();
        assert_eq!(names("/exec/n/p/c?input=1&output=1&error=1&command=x"), ["error", "stdin", "stdout", "stderr"]);
        assert_eq!(names("/exec/n/p/c?input=1&output=1&error=1&tty=1"), ["error", "stdin", "stdout", "resize"]);
        assert_eq!(names("/exec/n/p/c?output=1&command=input%3D1"), ["error", "stdout"]);
        let streams = Streams::of("/exec/n/p/c?output=1");
        assert_eq!((streams.stream(STDOUT), streams.channel(1)), (Some(3), Some(ERROR)));
    }

    #[test]
    fn messages_become_frames() {
        let streams = Streams::of("/exec/n/p/c?input=1&output=1");
        assert_eq!(inward(&streams, b"\0hi").unwrap(), spdy::data(3, b"hi", false));
        assert_eq!(inward(&streams, &[CLOSE, STDIN]).unwrap(), spdy::data(3, b"", true));
        assert_eq!(inward(&streams, &[CLOSE, RESIZE]), None);
        assert_eq!(inward(&streams, b"\x01out"), None);
        assert_eq!(inward(&streams, b""), None);
    }
}
