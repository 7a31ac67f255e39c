;; The smallest agent: saves "hello" as "memory" and answers whether it was done.
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
    (export "save" (func
      (param "name" string) (param "state" (list u8)) (param "options" $options)
      (result (result $info (error $error)))))))

  (core module $libc
    (memory (export "memory") 2)
    (global $free (mut i32) (i32.const 4096))
    ;; Gives out memory and never takes it back: one run needs little.
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.set $free (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.get $free)
      (global.set $free (i32.add (global.get $free) (local.get 3)))))
  (core instance $libc (instantiate $libc))
  (core func $save (canon lower (func $store "save")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))

  (core module $main
    (import "libc" "memory" (memory 2))
    (import "store" "save" (func $save
      (param i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32)))
    (data (i32.const 16) "memory")
    (data (i32.const 32) "hello")
    (data (i32.const 48) "saved")
    (data (i32.const 64) "refused")
    (func (export "run") (param i32 i32) (result i32)
      ;; name, state, expect any, no media type, no labels, and where to put the result
      (call $save
        (i32.const 16) (i32.const 6) (i32.const 32) (i32.const 5) (i32.const 0) (i64.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1024))
      ;; ok("saved") or err("refused"), as the call's own result is ok or an error
      (i32.store8 (i32.const 512) (i32.load8_u (i32.const 1024)))
      (i32.store (i32.const 516)
        (select (i32.const 64) (i32.const 48) (i32.load8_u (i32.const 1024))))
      (i32.store (i32.const 520)
        (select (i32.const 7) (i32.const 5) (i32.load8_u (i32.const 1024))))
      (i32.const 512)))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "store" (instance (export "save" (func $save))))))
  (func (export "run") (param "args" (list string)) (result (result string (error string)))
    (canon lift (core func $main "run") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc")))))
