//! Writes the table of core addons: every YAML file below `addons/` at the top of the repository, for `include_str!`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const FOLDER: &str = "../../addons";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={FOLDER}");
    let mut table = String::from("&[\n");
    for directory in sorted(Path::new(FOLDER))?.iter().filter(|path| path.is_dir()) {
        let _ = writeln!(table, "    ({:?}, &[", name(directory));
        for file in sorted(directory)?.iter().filter(|path| path.extension().is_some_and(|end| end == "yaml")) {
            let path = format!("/{FOLDER}/{}/{}", name(directory), name(file));
            let text = format!("include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {path:?}))");
            let _ = writeln!(table, "        ({:?}, {text}),", name(file));
        }
        table.push_str("    ]),\n");
    }
    table.push_str("]\n");
    let out = env::var_os("OUT_DIR").map(PathBuf::from).ok_or(io::ErrorKind::NotFound)?;
    fs::write(out.join("core_addons.rs"), table)
}

fn sorted(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
