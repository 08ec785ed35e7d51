//! A command's specification: written by the NIF, read by the shepherd.
//!
//! It is a sequence of fields: a tag byte, a length of four bytes, the value. Strings end with
//! their NUL, so that the shepherd hands them to `execve(2)` where they stand.

use crate::Malformed;
use std::ffi::CStr;

/// The fields of a specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// The executable: a name to look up on `SearchPath`, or a path.
    File = 1,
    /// Directories with a `:` between them; absent when `File` is a path.
    SearchPath,
    /// One argument; the first is `argv[0]`.
    Arg,
    /// One `NAME=value`.
    Env,
    /// The directory to go to, from the VM's own.
    Cd,
    Stdin,
    Stdout,
    Stderr,
    StopSignal,
    /// Milliseconds between the stop signal and SIGKILL.
    KillTimeout,
    Leftovers,
}

impl Tag {
    const ALL: [Tag; 11] = [
        Tag::File,
        Tag::SearchPath,
        Tag::Arg,
        Tag::Env,
        Tag::Cd,
        Tag::Stdin,
        Tag::Stdout,
        Tag::Stderr,
        Tag::StopSignal,
        Tag::KillTimeout,
        Tag::Leftovers,
    ];

    fn from_byte(byte: u8) -> Option<Tag> {
        Tag::ALL.into_iter().find(|tag| *tag as u8 == byte)
    }
}

/// Where one of the command's three standard descriptors leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    Null,
    /// The next of the descriptors that came with the request.
    Passed,
    /// Where the command's stdout leads (stderr only).
    Stdout,
}

/// What happens to the processes that a command leaves running when it exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    Kill,
    Leave,
}

impl Stdio {
    pub fn to_number(self) -> u64 {
        match self {
            Stdio::Null => 0,
            Stdio::Passed => 1,
            Stdio::Stdout => 2,
        }
    }

    fn from_number(number: u64) -> Result<Stdio, Malformed> {
        match number {
            0 => Ok(Stdio::Null),
            1 => Ok(Stdio::Passed),
            2 => Ok(Stdio::Stdout),
            _ => Err(Malformed),
        }
    }
}

impl Leftovers {
    pub fn to_number(self) -> u64 {
        match self {
            Leftovers::Kill => 0,
            Leftovers::Leave => 1,
        }
    }

    fn from_number(number: u64) -> Result<Leftovers, Malformed> {
        match number {
            0 => Ok(Leftovers::Kill),
            1 => Ok(Leftovers::Leave),
            _ => Err(Malformed),
        }
    }
}

/// Writes a specification, field by field.
#[derive(Default)]
pub struct SpecWriter {
    bytes: Vec<u8>,
}

impl SpecWriter {
    pub fn with_capacity(bytes: usize) -> SpecWriter {
        SpecWriter {
            bytes: Vec::with_capacity(bytes),
        }
    }

    /// A string field. A string that holds a NUL, or that no length field can count, is refused.
    pub fn string(&mut self, tag: Tag, value: &[u8]) -> Result<(), Malformed> {
        let length = u32::try_from(value.len() + 1).map_err(|_| Malformed)?;
        if value.contains(&0) {
            return Err(Malformed);
        }
        self.header(tag, length);
        self.bytes.extend_from_slice(value);
        self.bytes.push(0);
        Ok(())
    }

    pub fn number(&mut self, tag: Tag, value: u64) {
        self.header(tag, 8);
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    fn header(&mut self, tag: Tag, length: u32) {
        self.bytes.push(tag as u8);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// A specification as the shepherd reads it: the strings stay where they are.
#[derive(Debug, PartialEq, Eq)]
pub struct Spec<'a> {
    pub file: &'a CStr,
    pub search_path: Option<&'a CStr>,
    pub args: Vec<&'a CStr>,
    pub env: Vec<&'a CStr>,
    pub cd: Option<&'a CStr>,
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
    pub stop_signal: i32,
    pub kill_timeout_ms: u64,
    pub leftovers: Leftovers,
}

impl<'a> Spec<'a> {
    pub fn decode(mut bytes: &'a [u8]) -> Result<Spec<'a>, Malformed> {
        let mut file = None;
        let mut spec = Spec {
            file: c"",
            search_path: None,
            args: Vec::new(),
            env: Vec::new(),
            cd: None,
            stdin: Stdio::Null,
            stdout: Stdio::Null,
            stderr: Stdio::Null,
            stop_signal: 15,
            kill_timeout_ms: 5000,
            leftovers: Leftovers::Kill,
        };
        while let Some((&tag, rest)) = bytes.split_first() {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
            let length = u32::from_ne_bytes(*length) as usize;
            let (value, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
            bytes = rest;
            match Tag::from_byte(tag).ok_or(Malformed)? {
                Tag::File => file = Some(string(value)?),
                Tag::SearchPath => spec.search_path = Some(string(value)?),
                Tag::Arg => spec.args.push(string(value)?),
                Tag::Env => spec.env.push(string(value)?),
                Tag::Cd => spec.cd = Some(string(value)?),
                Tag::Stdin => spec.stdin = Stdio::from_number(number(value)?)?,
                Tag::Stdout => spec.stdout = Stdio::from_number(number(value)?)?,
                Tag::Stderr => spec.stderr = Stdio::from_number(number(value)?)?,
                Tag::StopSignal => {
                    spec.stop_signal = number(value)?.try_into().map_err(|_| Malformed)?
                }
                Tag::KillTimeout => spec.kill_timeout_ms = number(value)?,
                Tag::Leftovers => spec.leftovers = Leftovers::from_number(number(value)?)?,
            }
        }
        spec.file = file.ok_or(Malformed)?;
        Ok(spec)
    }
}

fn string(value: &[u8]) -> Result<&CStr, Malformed> {
    CStr::from_bytes_with_nul(value).map_err(|_| Malformed)
}

fn number(value: &[u8]) -> Result<u64, Malformed> {
    value
        .try_into()
        .map(u64::from_ne_bytes)
        .map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn c_bytes() -> impl Strategy<Value = Vec<u8>> {
        vec(1..=255u8, 0..40)
    }

    proptest! {
        #[test]
        fn a_spec_survives_the_wire(
            file in c_bytes(), args in vec(c_bytes(), 0..8), env in vec(c_bytes(), 0..8),
            timeout: u64, signal in 1..64u64,
        ) {
            let mut writer = SpecWriter::default();
            writer.string(Tag::File, &file).unwrap();
            args.iter().for_each(|arg| writer.string(Tag::Arg, arg).unwrap());
            env.iter().for_each(|pair| writer.string(Tag::Env, pair).unwrap());
            writer.number(Tag::KillTimeout, timeout);
            writer.number(Tag::StopSignal, signal);
            writer.number(Tag::Stderr, Stdio::Stdout.to_number());
            writer.number(Tag::Leftovers, Leftovers::Leave.to_number());
            let bytes = writer.finish();
            let spec = Spec::decode(&bytes).unwrap();
            prop_assert_eq!(spec.file.to_bytes(), &file[..]);
            prop_assert_eq!(spec.args.iter().map(|a| a.to_bytes().to_vec()).collect::<Vec<_>>(), args);
            prop_assert_eq!(spec.env.iter().map(|e| e.to_bytes().to_vec()).collect::<Vec<_>>(), env);
            prop_assert_eq!(spec.kill_timeout_ms, timeout);
            prop_assert_eq!(spec.stop_signal as u64, signal);
            prop_assert_eq!(spec.stderr, Stdio::Stdout);
            prop_assert_eq!(spec.leftovers, Leftovers::Leave);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Spec::decode(&bytes);
        }

        #[test]
        fn a_cut_spec_never_decodes_to_a_longer_one(args in vec(c_bytes(), 1..8), cut: prop::sample::Index) {
            let mut writer = SpecWriter::default();
            writer.string(Tag::File, b"x").unwrap();
            args.iter().for_each(|arg| writer.string(Tag::Arg, arg).unwrap());
            let bytes = writer.finish();
            if let Ok(spec) = Spec::decode(&bytes[..cut.index(bytes.len())]) {
                prop_assert!(spec.args.len() < args.len());
            }
        }
    }

    #[test]
    fn a_string_with_a_nul_is_refused() {
        let mut writer = SpecWriter::default();
        assert_eq!(writer.string(Tag::Arg, b"a\0b"), Err(Malformed));
    }

    #[test]
    fn a_spec_without_an_executable_is_malformed() {
        assert_eq!(Spec::decode(&[]), Err(Malformed));
    }
}
