;; Asks for two thousand sockets; one would be too many. Answers "none".
(component
  (import "wasi:sockets/network@0.2.0" (instance $network
    (type $error_ (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
      "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
      "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
      "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
      "permanent-resolver-failure"))
    (export "error-code" (type $error (eq $error_)))
    (type $family_ (enum "ipv4" "ipv6"))
    (export "ip-address-family" (type $family (eq $family_)))))
  (alias export $network "error-code" (type $error))
  (alias export $network "ip-address-family" (type $family))
  (import "wasi:sockets/tcp@0.2.0" (instance $tcp (export "tcp-socket" (type (sub resource)))))
  (alias export $tcp "tcp-socket" (type $socket))
  (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $create
    (alias outer 1 $error (type $error_)) (export "error-code" (type $error (eq $error_)))
    (alias outer 1 $family (type $family_)) (export "ip-address-family" (type $family (eq $family_)))
    (alias outer 1 $socket (type $socket_)) (export "tcp-socket" (type $socket (eq $socket_)))
    (export "create-tcp-socket" (func (param "address-family" $family)
      (result (result (own $socket) (error $error)))))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (core func $create (canon lower (func $create "create-tcp-socket") (memory (core memory $libc "memory"))))
  (core module $m
    (import "libc" "memory" (memory 1))
    (import "wasi" "create" (func $create (param i32 i32)))
    (data (i32.const 48) "none")
    (func (export "run") (param i32 i32) (result i32) (local $i i32)
      (loop $more
        (call $create (i32.const 0) (i32.const 64))
        (if (i32.eqz (i32.load8_u (i32.const 64))) (then unreachable))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $i) (i32.const 2000))))
      (i32.store (i32.const 512) (i32.const 0))
      (i32.store (i32.const 516) (i32.const 48))
      (i32.store (i32.const 520) (i32.const 4))
      (i32.const 512)))
  (core instance $i (instantiate $m
    (with "libc" (instance $libc)) (with "wasi" (instance (export "create" (func $create))))))
  (func (export "run") (param "args" (list string)) (result (result string (error string)))
    (canon lift (core func $i "run") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc")))))
