//! Integration tests. Each module tests one part of the behaviour:
//! - `versions`: saves, loads and deletions, on every storage without a server
//! - `outcomes`: errors when the storage's response is missing, and storages that are refused
//! - `retention`: pruning, pins, purges and verification of a history
//! - `gc`: leftovers of unfinished saves, and their removal
//! - `leases`: one host at a time on an agent
//! - `heads`: cached heads
//! - `races`: many writers of one name, in one process and in many
//! - `disk`: files on the local disk, and hostile or failing disks
//! - `file_systems`: file systems that lack a call, mount points, stores that a group shares
//! - `beside`: other programs beside a store on the local disk: backups by hard links, unmounts
//! - `adapter`: states at keys of the caller's own
//! - `streams`: states larger than memory
//! - `conformance`: the conformance suite on our storages, and on storages with planted bugs
//! - `sandbox`: what agents can and cannot do
//! - `run_options`: input, environment and HTTP of a run
//! - `keyvalue`: agents on the key-value bindings of other hosts
//! - `blobstore`: an agent on the blob store bindings of wasmCloud
//! - `extism`: plugins of Extism, whose state is in a store
//! - `zeroclaw`: plugins of ZeroClaw, whose state is in a store
//! - `hostile`: hostile guests, alone and together; rights, quotas, and calls in any order
//! - `cloud_backends`: promises of every backend on a server
//! - `probes`: servers that are refused before the first save
//! - `faults`: every backend with a fault at each request of each operation
//! - `languages`: agents in every language that has an SDK, with one shared memory
//! - `chat`: conversations with an agent
//! - `model_chat`: an agent that talks to a model
//! - `plugin_host`: a host of plugins with its own engine
//! - `checkpoint`: a long computation that is killed again and again
//! - `servers`: the servers that the tests of backends use
//! - `s3`, `s3_requests`, `s3_account`, `s3_faults`: Amazon S3: promises, costs, accounts, faults
//! - `gcs`: Google Cloud Storage
//! - `logs`: logs, and what they never contain
//! - `bad_input`: bad agents, arguments, files and directories, through the command
//! - `command`: the `persist` command, as a person or a script uses it
//! - `interrupted`: Ctrl-C
//! - `operators`: operations on single states, on every backend
//! - `retention_cli`: policies, pruning and statistics, on every backend
//! - `check_and_doctor`: problems of a store or its backend, and how they are reported
//! - `copy_export_import`: stores that are copied between backends, exported and imported
//! - `aws_settings`: settings of Amazon's own tools
//! - `credentials`: which servers are sent which credentials
//! - `selection`: several names at once, points in time, whole agents and sessions
//! - `serve`: agents and snapshots over HTTP
//! - `otlp`: traces and metrics of a service, sent to a collector
//! - `simulation`: requests of many agents on many hosts, and the simulation of more of them
//! - `replicas`: several services over one store, with leases and behind a proxy
//! - `fleet`: agents on Restate, whose turns are done once; a trial of many workers
//! - `netns`, `restate`: hosts that can be cut off, and a server of Restate
//! - `network`: proxies, login pages and wrong servers between a host and its store
//! - `secrets`: secrets in the wrong place, which no command prints
//! - `malformed`: keys, files and variables that no request can carry
//! - `endless`: responses of servers that never end
//! - `settings`: the table of settings is complete
//! - `json`: the JSON output is documented
//! - `output`: tables, totals, quiet runs, colours and times
//! - `completion`: completion in shells

mod adapter;
mod aws_settings;
mod bad_input;
mod beside;
mod blobstore;
mod chat;
mod check_and_doctor;
mod checkpoint;
mod cloud_backends;
mod command;
mod completion;
mod conformance;
mod console;
mod copy_export_import;
mod credentials;
mod disk;
mod driver;
mod endless;
mod extism;
mod faults;
mod file_systems;
mod fleet;
mod gc;
mod gcs;
mod heads;
mod hostile;
mod interrupted;
mod json;
mod keyvalue;
mod languages;
mod leases;
mod logs;
mod malformed;
mod model_chat;
mod netns;
mod network;
mod operators;
mod otlp;
mod outcomes;
mod output;
mod plugin_host;
mod probes;
mod races;
mod replicas;
mod restate;
mod retention;
mod retention_cli;
mod run_options;
mod s3;
mod s3_account;
mod s3_faults;
mod s3_requests;
mod sandbox;
mod secrets;
mod selection;
mod serve;
mod servers;
mod settings;
mod simulation;
mod streams;
mod versions;
mod zeroclaw;
