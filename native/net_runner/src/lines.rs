//! Splitting what a command printed into lines.

use lines::Lines;
use rustler::{Binary, Encoder, Env, NewBinary, NifResult, Term};
use std::ops::Range;

/// A line of up to this size is copied to the process's heap. A longer one is a part of the chunk, and keeps it alive.
const COPIED: usize = 64;

/// The first lines of `chunk`, at most `max_lines`, and the rest. With `trim`, lines come without their `\n` or `\r\n`.
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
