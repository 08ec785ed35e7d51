//! Where the lines of what a command printed lie.

use memchr::{memchr_iter, Memchr};
use std::iter::Take;
use std::ops::Range;

/// The lines of a chunk, by their places in it.
pub struct Lines<'a> {
    chunk: &'a [u8],
    newlines: Take<Memchr<'a>>,
    trim: bool,
    rest: usize,
}

impl<'a> Lines<'a> {
    /// At most `max_lines`. `trim` leaves the newlines out, also those of two bytes.
    pub fn new(chunk: &'a [u8], max_lines: usize, trim: bool) -> Lines<'a> {
        Lines {
            chunk,
            newlines: memchr_iter(b'\n', chunk).take(max_lines),
            trim,
            rest: 0,
        }
    }

    /// What lies behind the lines that were given so far.
    pub fn rest(&self) -> Range<usize> {
        self.rest..self.chunk.len()
    }
}

impl Iterator for Lines<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let newline = self.newlines.next()?;
        let start = self.rest;
        let end = match self.trim {
            false => newline + 1,
            true if newline > start && self.chunk[newline - 1] == b'\r' => newline - 1,
            true => newline,
        };
        self.rest = newline + 1;
        Some(start..end)
    }
}
