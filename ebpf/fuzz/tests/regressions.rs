//! Every input that once broke something, by its name.

use std::fs;
use std::path::Path;

use weir_fuzz::Target;

fn replay(target: Target) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target.name());
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the target's folder") {
        let path = entry.expect("an entry").path();
        println!("{}", path.display());
        target.run(&fs::read(&path).expect("a file"));
        count += 1;
    }
    assert_ne!(count, 0, "{} is empty", folder.display());
}

#[test]
fn compiler() {
    replay(Target::Compiler);
}

#[test]
fn manifests() {
    replay(Target::Manifests);
}

#[test]
fn guarded() {
    replay(Target::Guarded);
}

#[test]
fn packet() {
    replay(Target::Packet);
}

#[test]
fn socket() {
    replay(Target::Socket);
}

#[test]
fn wire() {
    replay(Target::Wire);
}
