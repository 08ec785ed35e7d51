//! Splitting what a command printed into lines.

use lines::Lines;
use rustler::{Binary, Encoder, Env, NewBinary, NifResult, Term};
use std::ops::Range;

/// A line of up to this size is copied: the VM keeps it on the heap, and it keeps no chunk alive.
const COPIED: usize = 64;

/// The lines of `chunk`, at most `max_lines`, and what is left behind the last newline found. `trim` leaves
/// the newlines out, also those of two bytes.
pub fn split<'a>(
    env: Env<'a>,
    chunk: Binary<'a>,
    max_lines: usize,
    trim: bool,
) -> NifResult<(Term<'a>, Term<'a>)> {
    let mut places = Lines::new(&chunk, max_lines, trim);
    let mut lines = Vec::with_capacity(64);
    for place in places.by_ref() {
        lines.push(part(env, &chunk, place)?);
    }
    let rest = places.rest();
    let rest = chunk.make_subbinary(rest.start, rest.len())?;
    Ok((lines.encode(env), rest.to_term(env)))
}

fn part<'a>(env: Env<'a>, chunk: &Binary<'a>, place: Range<usize>) -> NifResult<Term<'a>> {
    if place.len() > COPIED {
        return Ok(chunk.make_subbinary(place.start, place.len())?.to_term(env));
    }
    let mut copy = NewBinary::new(env, place.len());
    copy.as_mut_slice().copy_from_slice(&chunk[place]);
    Ok(copy.into())
}
