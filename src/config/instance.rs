//! The names on the machine that belong to one data directory, so that two instances live side by side.

use std::path::Path;

/// The data directory of the instance that has the short names.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/mini";

/// Names derived from the data directory's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `mini`, or `mini-` and six hexadecimal digits.
    pub id: String,
    /// The pod bridge; at most 15 bytes.
    pub bridge: String,
    /// The nftables table; letters, digits and underscores.
    pub table: String,
    /// The parent of all cgroups, from the root of the hierarchy.
    pub cgroup: String,
}

impl Instance {
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        let path = data_dir.components().as_path();
        if path == Path::new(DEFAULT_DATA_DIR) {
            return Self {
                id: "mini".to_owned(),
                bridge: "mini0".to_owned(),
                table: "mini".to_owned(),
                cgroup: "/mini".to_owned(),
            };
        }
        let suffix = format!("{:06x}", hash(path.as_os_str().as_encoded_bytes()) & 0x00ff_ffff);
        Self {
            id: format!("mini-{suffix}"),
            bridge: format!("mini-{suffix}"),
            table: format!("mini_{suffix}"),
            cgroup: format!("/mini-{suffix}"),
        }
    }

    #[must_use]
    pub fn is_default(&self) -> bool {
        self.id == "mini"
    }

    /// `/run/mini`, or the like.
    #[must_use]
    pub fn run_dir(&self) -> String {
        format!("/run/{}", self.id)
    }
}

/// FNV-1a: the same in every version of the program, which the standard library's hasher does not promise.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
