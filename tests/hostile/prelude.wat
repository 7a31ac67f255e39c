;; What every hostile guest in this folder begins with: the imports, memory, and a few calls. Its own module takes the place of
;; ";; GUEST", is called $guest, and exports `attack`. It answers "done" where that returns.
(component
  (import "persist:snapshot/store@0.1.0" (instance $store
    (type $info_ (record
      (field "name" string) (field "version" u64) (field "parent" (option u64)) (field "deleted" bool)
      (field "size" u64) (field "stored-size" u64) (field "sha256" string) (field "created-at" u64)
      (field "media-type" (option string)) (field "labels" (list (tuple string string)))))
    (export "info" (type $info (eq $info_)))
    (type $expect_ (variant (case "any") (case "absent") (case "version" u64)))
    (export "expect" (type $expect (eq $expect_)))
    (type $options_ (record
      (field "expect" $expect) (field "media-type" (option string))
      (field "labels" (list (tuple string string)))))
    (export "save-options" (type $options (eq $options_)))
    (type $quota_ (record (field "limit" string) (field "max" u64)))
    (export "quota" (type $quota (eq $quota_)))
    (type $failure_ (record (field "code" string) (field "message" string)))
    (export "failure" (type $failure (eq $failure_)))
    (type $error_ (variant
      (case "conflict" (option u64)) (case "not-found") (case "denied" string) (case "too-large" u64)
      (case "quota-exceeded" $quota) (case "invalid" string) (case "corrupt" string)
      (case "throttled" (option u64)) (case "unavailable" string) (case "timeout")
      (case "unknown-outcome" u64) (case "other" $failure)))
    (export "error" (type $error (eq $error_)))
    (export "writer" (type $writer (sub resource)))
    (export "reader" (type $reader (sub resource)))
    (export "save" (func
      (param "name" string) (param "state" (list u8)) (param "options" $options)
      (result (result $info (error $error)))))
    (export "[static]writer.open" (func (param "name" string) (param "options" $options)
      (result (result (own $writer) (error $error)))))
    (export "[method]writer.write" (func (param "self" (borrow $writer)) (param "chunk" (list u8))
      (result (result (error $error)))))
    (export "[static]writer.finish" (func (param "this" (own $writer))
      (result (result $info (error $error)))))
    (export "[static]reader.open" (func (param "name" string) (param "at" (option u64))
      (result (result (option (own $reader)) (error $error)))))
    (export "[method]reader.read" (func
      (param "self" (borrow $reader)) (param "offset" u64) (param "len" u32)
      (result (result (list u8) (error $error)))))))
  (alias export $store "writer" (type $writer))
  (alias export $store "reader" (type $reader))
  ;; A resource of the guest's own, in the same table of handles.
  (type $own (resource (rep i32)))

  (core module $libc
    (memory (export "memory") 4)
    (global $free (mut i32) (i32.const 65536))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.set $free (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
      (global.get $free)
      (global.set $free (i32.add (global.get $free) (local.get 3)))
      (block $fits
        (br_if $fits (i32.le_u (global.get $free) (i32.mul (memory.size) (i32.const 65536))))
        (drop (memory.grow (i32.const 64))))))
  (core instance $libc (instantiate $libc))
  (core func $save (canon lower (func $store "save")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $open (canon lower (func $store "[static]writer.open")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $write (canon lower (func $store "[method]writer.write")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $finish (canon lower (func $store "[static]writer.finish")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $reader (canon lower (func $store "[static]reader.open")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $read (canon lower (func $store "[method]reader.read")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $drop-writer (canon resource.drop $writer))
  (core func $drop-reader (canon resource.drop $reader))
  (core func $own-new (canon resource.new $own))

  ;; The calls with what stays the same filled in. The name is "victim"; a result lies at 1024.
  (core module $calls
    (import "libc" "memory" (memory 4))
    (import "store" "save" (func $save_ (param i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32)))
    (import "store" "open" (func $open_ (param i32 i32 i32 i64 i32 i32 i32 i32 i32 i32)))
    (import "store" "write" (func $write_ (param i32 i32 i32 i32)))
    (import "store" "finish" (func $finish_ (param i32 i32)))
    (import "store" "reader" (func $reader_ (param i32 i32 i32 i64 i32)))
    (data (i32.const 16) "victim")
    ;; Of a state at an address: 0 where it was saved.
    (func (export "save") (param $at i32) (param $len i32) (result i32)
      (call $save_ (i32.const 16) (i32.const 6) (local.get $at) (local.get $len) (i32.const 0) (i64.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1024))
      (i32.load8_u (i32.const 1024)))
    ;; Under a name at an address.
    (func (export "save-as") (param $at i32) (param $len i32) (result i32)
      (call $save_ (local.get $at) (local.get $len) (i32.const 16) (i32.const 6) (i32.const 0) (i64.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1024))
      (i32.load8_u (i32.const 1024)))
    ;; With labels at an address.
    (func (export "save-labelled") (param $at i32) (param $count i32) (result i32)
      (call $save_ (i32.const 16) (i32.const 6) (i32.const 16) (i32.const 6) (i32.const 0) (i64.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (local.get $at) (local.get $count) (i32.const 1024))
      (i32.load8_u (i32.const 1024)))
    ;; A writer's handle; a guest that gets none has no business here.
    (func (export "open") (result i32)
      (call $open_ (i32.const 16) (i32.const 6) (i32.const 0) (i64.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1024))
      (if (i32.load8_u (i32.const 1024)) (then unreachable))
      (i32.load (i32.const 1032)))
    ;; 0 where a writer was opened, which is then forgotten.
    (func (export "leak-writer") (result i32)
      (call $open_ (i32.const 16) (i32.const 6) (i32.const 0) (i64.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1024))
      (i32.load8_u (i32.const 1024)))
    (func (export "leak-reader") (result i32)
      (call $reader_ (i32.const 16) (i32.const 6) (i32.const 0) (i64.const 0) (i32.const 1024))
      (i32.load8_u (i32.const 1024)))
    (func (export "write") (param $writer i32) (param $at i32) (param $len i32) (result i32)
      (call $write_ (local.get $writer) (local.get $at) (local.get $len) (i32.const 1024))
      (i32.load8_u (i32.const 1024)))
    (func (export "finish") (param $writer i32) (result i32)
      (call $finish_ (local.get $writer) (i32.const 1024))
      (i32.load8_u (i32.const 1024)))
    (func (export "reader") (result i32)
      (call $reader_ (i32.const 16) (i32.const 6) (i32.const 0) (i64.const 0) (i32.const 1024))
      (if (i32.load8_u (i32.const 1024)) (then unreachable))
      (i32.load (i32.const 1036))))
  (core instance $calls (instantiate $calls
    (with "libc" (instance $libc))
    (with "store" (instance
      (export "save" (func $save)) (export "open" (func $open)) (export "write" (func $write))
      (export "finish" (func $finish)) (export "reader" (func $reader))))))

  ;; GUEST

  (core instance $guest (instantiate $guest
    (with "libc" (instance $libc))
    (with "calls" (instance $calls))
    (with "store" (instance
      (export "read" (func $read)) (export "drop-writer" (func $drop-writer))
      (export "drop-reader" (func $drop-reader)) (export "own-new" (func $own-new))))))
  (core module $main
    (import "guest" "attack" (func $attack))
    (import "libc" "memory" (memory 4))
    (data (i32.const 48) "done")
    (func (export "run") (param i32 i32) (result i32)
      (call $attack)
      (i32.store (i32.const 512) (i32.const 0))
      (i32.store (i32.const 516) (i32.const 48))
      (i32.store (i32.const 520) (i32.const 4))
      (i32.const 512)))
  (core instance $main (instantiate $main
    (with "guest" (instance $guest)) (with "libc" (instance $libc))))
  (func (export "run") (param "args" (list string)) (result (result string (error string)))
    (canon lift (core func $main "run") (memory (core memory $libc "memory"))
      (realloc (core func $libc "realloc")))))
