//! The document that one program leaves for the next: a head line, by which any release can judge
//! whether it can read the rest, and the body.

use std::path::PathBuf;

use protocol::framing::HalfLine;
use protocol::ids::{BatchId, Generation};
use protocol::version::{BUILD, VERSION_MAX, VERSION_MIN};
use serde::{Deserialize, Serialize};
use supervisor_core::containment::{Containment, Layer, Layers};

use crate::control::wire::{CONTROL_VERSION, Want};
use crate::driver::handover::HandoverError;
use crate::driver::handover::live::{LeftCore, LeftStage};
use crate::driver::operator::Watches;
use crate::store::path_text;

/// Version of this page. A release reads its own format only; a change of any field changes it.
pub const FORMAT: u32 = 1;

/// The first line. Its form is the same in all formats.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    /// [`FORMAT`] of the body.
    handover: u32,
    /// The release that wrote it.
    build: String,
    /// Length of the body.
    bytes: u64,
    /// CRC-32 of the body.
    crc: u32,
}

/// Everything that the next program needs and the journal does not hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The release that wrote it.
    pub build: String,
    /// Version that hosts speak.
    pub protocol: u32,
    /// Version that connected clients speak.
    pub control: u32,
    /// The batch.
    pub batch: BatchId,
    /// Its state dir.
    #[serde(with = "path_text")]
    pub dir: PathBuf,
    /// Where the control socket is.
    #[serde(with = "path_text")]
    pub socket: PathBuf,
    /// The host program of the release that wrote this.
    #[serde(with = "path_text")]
    pub host: PathBuf,
    /// The last durable record.
    pub seq: u64,
    /// What the core knows beside its records.
    pub core: LeftCore,
    /// The hardest stop that was asked for.
    pub stopping: Option<LeftStage>,
    /// The stage that signals have reached.
    pub signals: Option<LeftStage>,
    /// A signal that came while the program was leaving, and asks for this.
    pub signalled: Option<LeftStage>,
    /// Live hosts.
    pub hosts: Vec<Host>,
    /// Connected clients.
    pub clients: Vec<Client>,
    /// The number of the next connection.
    pub next_connection: u64,
    /// Requests that were not looked at yet.
    pub asked: Vec<Request>,
    /// Who waits for steps.
    pub watches: Watches,
    /// Descriptor of the lock.
    pub lock: i32,
    /// Descriptor of the control socket.
    pub listener: i32,
    /// Descriptor of the line to the guardian; absent where there is none.
    pub guardian: Option<i32>,
    /// Whose request this is about.
    pub order: Order,
}

/// The request to replace the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The connection that asked.
    pub connection: u64,
    /// When, milliseconds of the boot-time clock.
    pub asked_ms: u64,
    /// Since when the batch stands still, on the same clock.
    pub still_ms: u64,
}

/// A live host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its run.
    pub generation: Generation,
    /// Its process number.
    pub pid: u32,
    /// Its spawn token, in the digits of the environment's tag.
    pub token: String,
    /// Words of the layers that hold its tree together.
    pub layers: Vec<String>,
    /// The folder of its cgroup.
    pub leaf: Option<String>,
    /// It was asked to end, with a grace.
    pub asked: bool,
    /// Its family was asked to end, and it is to be killed.
    pub ending: bool,
    /// Descriptor of its pin.
    pub process: i32,
    /// Descriptor of the pipe of commands.
    pub stdin: i32,
    /// Descriptor of the pipe of reports; absent in a sample.
    pub stdout: Option<i32>,
    /// The number of the last request to it.
    pub last_id: u64,
    /// The release that said hello to it.
    pub said: String,
    /// Bytes that wait for it to read.
    pub unsent: Bytes,
    /// It has closed its stdin.
    pub closed: bool,
    /// What was read of a line that has only begun.
    pub line: Bytes,
    /// That line was over the limit already.
    pub swallowing: bool,
    /// The end of its stdout has not been seen.
    pub open: bool,
}

impl Host {
    /// Its spawn token.
    pub fn token(&self) -> Option<u128> {
        u128::from_str_radix(&self.token, 16).ok()
    }

    /// What holds its tree together; `None` when a layer is not known here.
    pub fn containment(&self) -> Option<Containment> {
        let layer = |word: &String| Layer::ALL.iter().copied().find(|it| it.word() == word);
        let layers: Option<Layers> = self.layers.iter().map(layer).collect();
        Some(Containment {
            layers: layers?,
            leaf: self.leaf.as_deref().map(Into::into),
            // The journal says who keeps its limit; the table of hosts does not ask.
            memory: None,
        })
    }

    /// The line that has begun.
    pub fn half_line(&self) -> HalfLine {
        HalfLine {
            bytes: self.line.0.clone(),
            swallowing: self.swallowing,
        }
    }
}

/// A connected client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The number of the connection.
    pub connection: u64,
    /// Its descriptor.
    pub stream: i32,
    /// What was read of its request; absent once that was handed on.
    pub reading: Option<Bytes>,
}

/// A request that was not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Whose.
    pub connection: u64,
    /// The client's process.
    pub pid: Option<u32>,
    /// What is wanted.
    pub want: Want,
}

/// Bytes in JSON, two digits each: a half-read line need not be text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
        let text: String = (self.0.iter())
            .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
            .collect();
        to.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(from)?;
        let digit = |byte: u8| {
            char::from(byte)
                .to_digit(16)
                .and_then(|it| u8::try_from(it).ok())
        };
        let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _odd => None,
        });
        let bytes: Option<Vec<u8>> = pairs.collect();
        bytes
            .map(Bytes)
            .ok_or_else(|| serde::de::Error::custom("bytes are pairs of hexadecimal digits"))
    }
}

impl Document {
    /// The whole document as bytes.
    ///
    /// # Errors
    /// When a path is none that JSON can hold; there is no such path.
    pub fn write(&self) -> Result<Vec<u8>, serde_json::Error> {
        let body = serde_json::to_vec(self)?;
        let head = Head {
            handover: FORMAT,
            build: BUILD.to_owned(),
            bytes: body.len() as u64,
            crc: crc32fast::hash(&body),
        };
        let mut bytes = serde_json::to_vec(&head)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`HandoverError`]: it is damaged, of another format, or speaks of versions not known here.
    pub fn read(bytes: &[u8]) -> Result<Document, HandoverError> {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or(HandoverError::Damaged("it has no head"))?;
        let (head, body) = (&bytes[..end], &bytes[end + 1..]);
        let head: Head = serde_json::from_slice(head)
            .map_err(|_| HandoverError::Damaged("its head can not be read"))?;
        if head.handover != FORMAT {
            return Err(HandoverError::Format {
                build: head.build,
                found: head.handover,
                ours: BUILD,
                known: FORMAT,
            });
        }
        if body.len() as u64 != head.bytes || crc32fast::hash(body) != head.crc {
            return Err(HandoverError::Damaged("its checksum does not fit"));
        }
        let document: Document = serde_json::from_slice(body).map_err(HandoverError::Fields)?;
        document.check_versions()?;
        if (document.hosts.iter()).any(|it| it.token().is_none() || it.containment().is_none()) {
            return Err(HandoverError::Damaged(
                "a host's token or layers are not known",
            ));
        }
        Ok(document)
    }

    fn check_versions(&self) -> Result<(), HandoverError> {
        let spoken = [
            ("hosts", self.protocol, VERSION_MIN, VERSION_MAX),
            ("clients", self.control, CONTROL_VERSION, CONTROL_VERSION),
        ];
        for (who, found, min, max) in spoken {
            if !(min..=max).contains(&found) {
                return Err(HandoverError::Version {
                    who,
                    found,
                    min,
                    max,
                });
            }
        }
        Ok(())
    }

    /// Every descriptor that it names, and what each is.
    pub fn descriptors(&self) -> Vec<(i32, &'static str)> {
        let mut all = vec![(self.lock, "lock"), (self.listener, "control socket")];
        all.extend(self.guardian.map(|number| (number, "line to the guardian")));
        for host in &self.hosts {
            all.push((host.process, "host"));
            all.push((host.stdin, "stdin of a host"));
            all.extend(host.stdout.map(|number| (number, "stdout of a host")));
        }
        all.extend(self.clients.iter().map(|it| (it.stream, "client")));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use supervisor_core::core::Unrecorded;
    use supervisor_core::input::StopStage;

    fn sample() -> Document {
        Document {
            build: BUILD.to_owned(),
            protocol: VERSION_MAX,
            control: CONTROL_VERSION,
            batch: "some-batch".parse().unwrap(),
            dir: PathBuf::from("/state/some-batch"),
            socket: PathBuf::from("/run/s.sock"),
            host: PathBuf::from("/bin/agent-host"),
            seq: 7,
            core: LeftCore::from(Unrecorded::default()),
            stopping: None,
            signals: Some(LeftStage(StopStage::Drain)),
            signalled: None,
            hosts: vec![Host {
                generation: Generation(3),
                pid: 99,
                token: "0f".to_owned(),
                layers: vec!["session".to_owned(), "cgroup".to_owned()],
                leaf: Some("/sys/fs/cgroup/x".to_owned()),
                asked: true,
                ending: false,
                process: 10,
                stdin: 11,
                stdout: Some(12),
                last_id: 4,
                said: "0.0.9".to_owned(),
                unsent: Bytes(b"{\"half".to_vec()),
                closed: false,
                line: Bytes(vec![0, 0xff, b'\n', 0x7f]),
                swallowing: false,
                open: true,
            }],
            clients: vec![Client {
                connection: 5,
                stream: 13,
                reading: Some(Bytes(b"{\"v\":".to_vec())),
            }],
            next_connection: 6,
            asked: vec![Request {
                connection: 5,
                pid: Some(1),
                want: Want::Activity,
            }],
            watches: Watches::default(),
            lock: 8,
            guardian: Some(20),
            listener: 9,
            order: Order {
                connection: 5,
                asked_ms: 1,
                still_ms: 2,
            },
        }
    }

    #[test]
    fn a_document_comes_back_whole() {
        let document = sample();
        assert_eq!(
            Document::read(&document.write().unwrap()).unwrap(),
            document
        );
        let numbers: Vec<i32> = document.descriptors().iter().map(|it| it.0).collect();
        assert_eq!(numbers, [8, 9, 20, 10, 11, 12, 13]);
    }

    #[test]
    fn every_changed_or_missing_byte_is_found() {
        let bytes = sample().write().unwrap();
        let head = bytes.iter().position(|&byte| byte == b'\n').unwrap();
        for at in head + 1..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let error = Document::read(&changed).unwrap_err();
            assert!(matches!(error, HandoverError::Damaged(_)), "{at}: {error}");
            assert!(Document::read(&bytes[..at]).is_err(), "{at}");
        }
        assert!(Document::read(b"").is_err());
    }

    #[test]
    fn another_format_is_refused_by_its_head_alone() {
        let text = "{\"handover\":2,\"build\":\"9.9.9\",\"bytes\":3,\"crc\":0}\nx";
        let error = Document::read(text.as_bytes()).unwrap_err().to_string();
        assert!(
            error.contains("9.9.9") && error.contains("format 2") && error.contains(BUILD),
            "{error}"
        );
    }

    #[test]
    fn what_holds_a_hosts_tree_is_known_or_refused() {
        let mut document = sample();
        let found = document.hosts[0].containment().unwrap();
        assert!(found.layers.has(Layer::Session) && found.layers.has(Layer::Cgroup));
        assert_eq!(found.leaf.as_deref(), Some("/sys/fs/cgroup/x"));
        assert_eq!(document.hosts[0].token(), Some(15));
        document.hosts[0].layers.push("force field".to_owned());
        assert!(Document::read(&document.write().unwrap()).is_err());
    }

    #[test]
    fn a_version_that_is_not_spoken_is_refused_naming_both() {
        for (who, protocol, control) in [
            ("hosts", VERSION_MAX + 1, CONTROL_VERSION),
            ("clients", VERSION_MAX, CONTROL_VERSION + 1),
        ] {
            let document = Document {
                protocol,
                control,
                ..sample()
            };
            let error = Document::read(&document.write().unwrap()).unwrap_err();
            assert!(error.to_string().starts_with(who), "{error}");
        }
    }
}
