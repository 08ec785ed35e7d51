//! What a feeder has produced and its command's server has not written yet: pieces of input that lie here, so that many
//! of them take one message and one `writev(2)`. Bounded, so that a feeder runs ahead of its command only so far.

use rustler::{Binary, Env, NewBinary, Resource, Term};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many bytes may lie here: as many as a pipe holds by default (pipe(7)).
const SIZE: usize = 64 * 1024;

#[derive(Default)]
pub struct Window(Mutex<Contents>);

#[derive(Default)]
struct Contents {
    bytes: Vec<u8>,
    closed: bool,
}

pub enum Pushed {
    /// More lay here before: the server has been told of it.
    Behind,
    /// Nothing lay here: the server has to be told.
    First,
    Full,
    /// Nobody will write it.
    Closed,
}

impl Resource for Window {}

impl Window {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, piece: &[u8]) -> Pushed {
        let mut contents = self.contents();
        if contents.closed {
            return Pushed::Closed;
        }
        if contents.bytes.len() + piece.len() > SIZE {
            return Pushed::Full;
        }
        let first = contents.bytes.is_empty();
        contents.bytes.extend_from_slice(piece);
        if first {
            Pushed::First
        } else {
            Pushed::Behind
        }
    }

    /// Takes all that lies here.
    pub fn take<'a>(&self, env: Env<'a>) -> Term<'a> {
        // The feeder is not kept waiting for the copy.
        let bytes = mem::take(&mut self.contents().bytes);
        let mut taken = NewBinary::new(env, bytes.len());
        taken.as_mut_slice().copy_from_slice(&bytes);
        Binary::from(taken).to_term(env)
    }

    /// Drops what lies here; nothing is taken in any more.
    pub fn close(&self) {
        *self.contents() = Contents {
            closed: true,
            ..Contents::default()
        };
    }
}
