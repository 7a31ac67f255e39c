//! Integration tests. Each claim is in one place:
//! - `versions`: what a save, a load, a deletion mean, on every storage without a server
//! - `outcomes`: what is said when the storage's answer is unclear, and which storages are refused
//! - `retention`: what is kept of a history, pinned, pruned, purged and verified
//! - `gc`: what saves that were never finished leave behind, and how it is removed
//! - `heads`: what hosts remember of heads, and that it is never misreported
//! - `races`: many writers of one name, in one process and in many
//! - `disk`: what lies on the local disk, and what a hostile or dying one can do
//! - `beside`: other programs beside a store on the local disk: backups by hard links, unmounted
//!   disks
//! - `adapter`: states at keys of the caller's own choice
//! - `streams`: states larger than memory
//! - `conformance`: the suite for storages on ours, and that it finds what it must
//! - `sandbox`: what agents can do, and cannot
//! - `hostile`: guests that mean harm, alone and all at once; rights, quotas, and calls in any
//!   order
//! - `clouds`: what every backend on a server promises
//! - `faults`: every backend with a fault at each request of each operation
//! - `languages`: the same in every language that has an SDK, and a conversation handed from one to
//!   the next
//! - `checkpoint`: a long computation that is killed over and over
//! - `servers`: the servers that the tests of backends use
//! - `s3`: what Amazon S3 promises, and what is asked of it
//! - `s3_account`: S3 with permissions, credentials and clocks that are not as they should be
//! - `s3_requests`: what calls cost on S3
//! - `s3_faults`: what S3 alone answers on bad days
//! - `gcs`: what Google Cloud Storage promises, and what is asked of it
//! - `packages`: that Persist is made of what was asked for
//! - `logs`: what is logged, and what never is
//! - `bad_input`: bad agents, words, files and directories, through the command
//! - `command`: the `persist` command, as a person or a script sees it
//! - `interrupted`: what Ctrl-C leaves, and what is said of it
//! - `operators`: what an operator does with single states, on every backend
//! - `keeping`: what is kept of histories, and how they grew, on every backend
//! - `trouble`: what is wrong with a store or its backend, and how it is said
//! - `moves`: stores that are copied between backends, exported and imported
//! - `credentials`: which servers are sent credentials, and which are not
//! - `secrets`: secrets in the wrong place, which no command shows
//! - `malformed`: keys, files and variables that no request can carry
//! - `endless`: answers of servers that never end
//! - `settings`: what is documented is read, and what is read is documented

mod adapter;
mod bad_input;
mod beside;
mod check_and_doctor;
mod checkpoint;
mod cloud_backends;
mod command;
mod conformance;
mod copy_export_import;
mod credentials;
mod disk;
mod endless;
mod faults;
mod gc;
mod gcs;
mod heads;
mod hostile;
mod interrupted;
mod languages;
mod logs;
mod malformed;
mod operators;
mod outcomes;
mod packages;
mod probes;
mod races;
mod retention;
mod retention_cli;
mod s3;
mod s3_account;
mod s3_faults;
mod s3_requests;
mod sandbox;
mod secrets;
mod servers;
mod settings;
mod streams;
mod versions;
