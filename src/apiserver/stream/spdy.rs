//! As much of SPDY/3.1 as a client of the kubelet's streams needs.
//!
//! Headers are sent as stored (uncompressed) deflate blocks, each flushed with an empty one, so no dictionary is needed;
//! headers that are received are of no interest and are skipped. Flow control is not used by the far end.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u16 = 0x8003;
const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;
const FIN: u8 = 1;
/// Both for frames: what the length field holds, and what we believe.
const MAX_LENGTH: usize = 0x00ff_ffff;
const MAX_CONTROL: usize = 64 * 1024;

/// What comes from the far end, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Data {
        stream: u32,
        fin: bool,
        bytes: Bytes,
    },
    /// The stream is over: the far end refused or ended it.
    Reset {
        stream: u32,
    },
    /// To be sent back as it is.
    Ping {
        id: u32,
    },
    GoAway,
    Other,
}

/// Writes frames.
#[derive(Default)]
pub(super) struct Writer {
    started: bool,
}

impl Writer {
    /// Opens a stream; client's streams have odd numbers that rise.
    pub(super) fn open(&mut self, stream: u32, headers: &[(&str, &str)]) -> Bytes {
        let mut block = BytesMut::new();
        block.put_u32(u32::try_from(headers.len()).unwrap_or(0));
        for (name, value) in headers {
            for text in [name, value] {
                block.put_u32(u32::try_from(text.len()).unwrap_or(0));
                block.put_slice(text.as_bytes());
            }
        }
        let mut compressed = BytesMut::new();
        if !self.started {
            self.started = true;
            // The zlib header, once for the connection: deflate, no dictionary.
            compressed.put_slice(&[0x78, 0x01]);
        }
        for part in [block.as_ref(), &[]] {
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            compressed.put_u8(0);
            compressed.put_u16_le(length);
            compressed.put_u16_le(!length);
            compressed.put_slice(part);
        }
        let mut frame = control(SYN_STREAM, 10 + compressed.len());
        frame.put_u32(stream);
        // No associated stream, highest priority, no slot.
        frame.put_u32(0);
        frame.put_u16(0);
        frame.put_slice(&compressed);
        frame.freeze()
    }
}

/// Data, in as many frames as it takes; `fin` closes our half of the stream.
pub(super) fn data(stream: u32, mut bytes: &[u8], fin: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes.len() + 8);
    loop {
        let (part, rest) = bytes.split_at(bytes.len().min(MAX_LENGTH));
        bytes = rest;
        let last = rest.is_empty();
        out.put_u32(stream);
        let flags = if fin && last { u32::from(FIN) } else { 0 };
        out.put_u32(flags << 24 | u32::try_from(part.len()).unwrap_or(0));
        out.put_slice(part);
        if last {
            return out.freeze();
        }
    }
}

pub(super) fn ping(id: u32) -> Bytes {
    let mut frame = control(PING, 4);
    frame.put_u32(id);
    frame.freeze()
}

fn control(kind: u16, length: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(8 + length);
    frame.put_u16(VERSION);
    frame.put_u16(kind);
    frame.put_u32(u32::try_from(length).unwrap_or(0));
    frame
}

/// Takes the next frame off `buffer`; `None` if it is not all there yet.
///
/// # Errors
/// It is no SPDY.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, String> {
    let Some((head, rest)) = buffer.split_first_chunk::<8>() else { return Ok(None) };
    let [b0, b1, b2, b3, flags, l0, l1, l2] = *head;
    let length = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
    let is_control = b0 & 0x80 != 0;
    if is_control {
        if u16::from_be_bytes([b0, b1]) != VERSION {
            return Err("the far end speaks another version of SPDY".to_owned());
        }
        if length > MAX_CONTROL {
            return Err(format!("a control frame of {length} bytes"));
        }
    }
    if rest.len() < length {
        buffer.reserve(length - rest.len());
        return Ok(None);
    }
    buffer.advance(8);
    let mut body = buffer.split_to(length).freeze();
    if !is_control {
        let stream = u32::from_be_bytes([b0, b1, b2, b3]);
        return Ok(Some(Frame::Data { stream, fin: flags & FIN != 0, bytes: body }));
    }
    Ok(Some(match u16::from_be_bytes([b2, b3]) {
        RST_STREAM if body.len() >= 4 => Frame::Reset { stream: body.get_u32() & 0x7fff_ffff },
        PING if body.len() >= 4 => Frame::Ping { id: body.get_u32() },
        GO_AWAY => Frame::GoAway,
        _ => Frame::Other,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn headers_can_be_inflated() {
        let mut writer = Writer::default();
        let (first, second) = (writer.open(1, &[("streamtype", "error")]), writer.open(3, &[("streamtype", "stdin")]));
        let mut zlib = first[18..].to_vec();
        zlib.extend_from_slice(&second[18..]);
        let mut inflated = [0; 2 * (4 + 4 + 10 + 4 + 5)];
        flate2::read::ZlibDecoder::new(zlib.as_slice()).read_exact(&mut inflated).unwrap();
        assert_eq!(&inflated[..27], b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05error");
        assert_eq!(&inflated[27..], b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05stdin");
        assert_eq!(&first[..4], &[0x80, 3, 0, 1]);
        assert_eq!(usize::from(first[7]), first.len() - 8);
    }

    #[test]
    fn frames_come_in_pieces() {
        let all = [data(5, b"hello", true), ping(2), control(GO_AWAY, 0).freeze()].concat();
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for byte in all {
            buffer.put_u8(byte);
            frames.extend(take(&mut buffer).unwrap());
        }
        let hello = Frame::Data { stream: 5, fin: true, bytes: Bytes::from_static(b"hello") };
        assert_eq!(frames, [hello, Frame::Ping { id: 2 }, Frame::GoAway]);
    }

    #[test]
    fn any_bytes_are_the_same_frames_in_any_pieces() {
        let all = [data(5, b"hello", true), ping(2), control(GO_AWAY, 0).freeze()].concat();
        mini_fuzz::run(&[&all], &["\u{0}", "\x03"], |input| {
            let frames = |size: usize| {
                let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
                for piece in input.chunks(size) {
                    buffer.extend_from_slice(piece);
                    while let Some(frame) = take(&mut buffer)? {
                        frames.push(frame);
                    }
                }
                Ok::<_, String>(frames)
            };
            let whole = frames(usize::MAX);
            assert_eq!(whole, frames(3));
            whole.map(|frames| frames.len())
        });
    }

    #[test]
    fn other_protocols_are_refused() {
        assert!(take(&mut BytesMut::from(&b"\x80\x02\0\x01\0\0\0\0"[..])).is_err());
        assert!(take(&mut BytesMut::from(&b"\x80\x03\0\x01\0\xff\xff\xff"[..])).is_err());
        assert_eq!(take(&mut BytesMut::from(&b"\x80\x03\0"[..])), Ok(None));
    }
}
