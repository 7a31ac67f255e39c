//! Permissions of the files and directories of a store.

use crate::storage::{Error, ErrorKind, Result};

/// Permissions that new files and directories of a [`Local`](super::Local) storage get, whatever
/// the umask says.
///
/// Without any, files are made with mode 0600 and directories with 0700, and the umask can only
/// take rights away. Directories inherit the set-group-ID bit in any case.
///
/// ```
/// use persist_host::storage::{Local, Modes};
///
/// // For the accounts of one group, which has the directory of the store.
/// let modes = Modes::new(Some(0o660), Some(0o2770))?;
/// let storage = Local::with_modes("/srv/agents", modes);
/// # Ok::<(), persist_host::storage::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    file: Option<u32>,
    dir: Option<u32>,
}

/// Modes of files without a bit that makes no sense for a snapshot.
const FILE_BITS: u32 = 0o666;
const FILE_OWNER: u32 = 0o600;
const DIR_BITS: u32 = 0o2777;
const DIR_OWNER: u32 = 0o700;

/// The right of all other accounts to write.
const OTHERS_WRITE: u32 = 0o002;

impl Modes {
    /// Returns the permissions for files and for directories; none leaves the private ones.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the owner lacks a right, where every account may write, or where
    /// a bit has no use.
    pub fn new(file: Option<u32>, dir: Option<u32>) -> Result<Self> {
        if let Some(mode) = file {
            let example = "use a mode such as 0660 or 0640";
            check("file", mode, FILE_OWNER, FILE_BITS, example)?;
        }
        if let Some(mode) = dir {
            let example = "use a mode such as 2770 or 2750";
            check("directory", mode, DIR_OWNER, DIR_BITS, example)?;
        }
        Ok(Self { file, dir })
    }

    pub(super) fn file(self) -> Option<u32> {
        self.file
    }

    pub(super) fn dir(self) -> Option<u32> {
        self.dir
    }
}

fn check(object: &str, mode: u32, owner: u32, bits: u32, example: &str) -> Result<()> {
    let why = if mode & OTHERS_WRITE != 0 {
        "lets every account write"
    } else if mode & owner != owner {
        "takes rights from the owner"
    } else if mode & !bits != 0 {
        "has bits that a store does not use"
    } else {
        return Ok(());
    };
    let what = format!("the {object} mode {mode:04o} {why}");
    Err(Error::new(ErrorKind::Config, what).with_hint(example))
}

/// Parses a mode in octal digits, such as `0660`, `2770` or `0o640`.
///
/// # Errors
/// [`ErrorKind::Config`] where it is not such a number.
pub fn parse_mode(text: &str) -> Result<u32> {
    let digits = text.trim();
    let digits = digits.strip_prefix("0o").unwrap_or(digits);
    let is_octal = (3..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let mode = u32::from_str_radix(digits, 8).ok();
    mode.filter(|_| is_octal).ok_or_else(|| {
        let shown = crate::storage::redact(text);
        let what = format!("{shown:?} is not a file mode in octal digits");
        Error::new(ErrorKind::Config, what).with_hint("write a mode such as 0660 or 2770")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        for (text, mode) in [
            ("0660", 0o660),
            ("660", 0o660),
            (" 2770 ", 0o2770),
            ("02770", 0o2770),
            ("0o640", 0o640),
        ] {
            assert_eq!(parse_mode(text).expect(text), mode, "{text}");
        }
        for text in [
            "",
            "6",
            "66",
            "0680",
            "rw-rw----",
            "0x1b0",
            "-660",
            "+660",
            "006600",
        ] {
            let error = parse_mode(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        }
    }

    #[test]
    fn modes_that_open_a_store_to_all_or_close_it_to_its_owner_are_refused() {
        for (file, dir) in [
            (Some(0o600), Some(0o700)),
            (Some(0o660), Some(0o2770)),
            (Some(0o644), Some(0o755)),
            (None, None),
        ] {
            Modes::new(file, dir).expect("good");
        }
        for (file, dir, why) in [
            (
                Some(0o666),
                None,
                "the file mode 0666 lets every account write",
            ),
            (
                None,
                Some(0o2777),
                "the directory mode 2777 lets every account write",
            ),
            (Some(0o060), None, "from the owner"),
            (None, Some(0o670), "from the owner"),
            (Some(0o770), None, "does not use"),
            (Some(0o2660), None, "does not use"),
            (None, Some(0o1770), "does not use"),
        ] {
            let error = Modes::new(file, dir).expect_err(why);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
