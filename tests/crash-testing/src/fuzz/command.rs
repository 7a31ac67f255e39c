//! The parser of the command's addresses, which is part of a binary and therefore compiled here
//! once more.

#[expect(dead_code, reason = "the command uses the rest")]
#[path = "../../../../host/cli/src/address.rs"]
pub(super) mod address;

#[path = "../../../../host/cli/src/unseen.rs"]
mod unseen;

/// Items that the parser takes from the rest of the command.
mod error {
    use std::fmt;

    #[derive(Debug)]
    pub(super) struct Usage(String);

    impl Usage {
        pub(super) fn new(what: String) -> Self {
            Self(what)
        }

        pub(super) fn with_hint(self, _: String) -> Self {
            self
        }
    }

    impl fmt::Display for Usage {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0)
        }
    }

    impl std::error::Error for Usage {}
}
