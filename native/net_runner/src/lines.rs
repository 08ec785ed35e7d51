//! Splitting what a command printed into lines.

use memchr::memchr_iter;
use rustler::{Binary, Encoder, Env, NewBinary, NifResult, Term};

/// A line of up to this size is copied to the process's heap. A longer one is a part of the chunk, and keeps it alive.
const COPIED: usize = 64;

/// The first lines of `chunk`, at most `max_lines`, and the rest. With `trim`, lines come without their `\n` or `\r\n`.
pub fn split<'a>(
    env: Env<'a>,
    chunk: Binary<'a>,
    max_lines: usize,
    trim: bool,
) -> NifResult<(Term<'a>, Term<'a>)> {
    let mut lines = Vec::with_capacity(64);
    let mut start = 0;
    for newline in memchr_iter(b'\n', &chunk).take(max_lines) {
        let end = match trim {
            false => newline + 1,
            true if newline > start && chunk[newline - 1] == b'\r' => newline - 1,
            true => newline,
        };
        lines.push(part(env, &chunk, start, end - start)?);
        start = newline + 1;
    }
    let rest = chunk.make_subbinary(start, chunk.len() - start)?;
    Ok((lines.encode(env), rest.to_term(env)))
}

fn part<'a>(env: Env<'a>, chunk: &Binary<'a>, start: usize, length: usize) -> NifResult<Term<'a>> {
    if length > COPIED {
        return Ok(chunk.make_subbinary(start, length)?.to_term(env));
    }
    let mut copy = NewBinary::new(env, length);
    copy.as_mut_slice()
        .copy_from_slice(&chunk[start..start + length]);
    Ok(copy.into())
}
