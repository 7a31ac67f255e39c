;; Four writers of one name, of which each expects the head that it found: one wins, three lose, and nothing is mixed.
(core module $guest
  (import "calls" "open" (func $open (result i32)))
  (import "calls" "write" (func $write (param i32 i32 i32) (result i32)))
  (import "calls" "finish" (func $finish (param i32) (result i32)))
  (func (export "attack") (local $a i32) (local $b i32) (local $c i32) (local $d i32)
    (local.set $a (call $open)) (local.set $b (call $open))
    (local.set $c (call $open)) (local.set $d (call $open))
    (drop (call $write (local.get $a) (i32.const 16) (i32.const 6)))
    (drop (call $write (local.get $c) (i32.const 16) (i32.const 3)))
    (if (call $finish (local.get $b)) (then unreachable))
    (if (i32.eqz (call $finish (local.get $a))) (then unreachable))
    (if (i32.eqz (call $finish (local.get $d))) (then unreachable))
    (if (i32.eqz (call $finish (local.get $c))) (then unreachable))))
