//! What the fuzzers found worth keeping (see fuzz/README.md) still holds.

#[path = "../../../fuzz/checks/wire.rs"]
mod checks;

#[test]
fn the_corpus_of_the_wire_format_holds() {
    replay("spec", checks::spec);
    replay("event", checks::event);
    replay("request", checks::request);
}

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");
    let mut count = 0;
    for file in std::fs::read_dir(format!("{corpus}/{target}")).unwrap() {
        check(&std::fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no corpus of {target}");
}
