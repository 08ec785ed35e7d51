//! What holds for the line splitter, whatever the bytes. The first two say how it is called.

use lines::Lines;

pub fn lines(bytes: &[u8]) {
    let [max_lines, trim, chunk @ ..] = bytes else {
        return;
    };
    let (max_lines, trim) = (usize::from(*max_lines), trim % 2 == 1);
    let mut lines = Lines::new(chunk, max_lines, trim);
    let given: Vec<&[u8]> = lines.by_ref().map(|place| &chunk[place]).collect();
    let rest = &chunk[lines.rest()];

    // The same, as one would say it.
    let whole = chunk.split_inclusive(|byte| *byte == b'\n');
    let whole = whole.filter(|line| line.ends_with(b"\n")).take(max_lines);
    let whole: Vec<&[u8]> = whole.collect();
    let length: usize = whole.iter().map(|line| line.len()).sum();
    let expected: Vec<&[u8]> = whole
        .into_iter()
        .map(|line| if trim { trimmed(line) } else { line })
        .collect();
    assert_eq!(given, expected);
    assert_eq!(rest, &chunk[length..]);
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
