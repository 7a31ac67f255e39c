;; A thousand labels that are all the same 100 KB of its memory: 200 MB in the host.
(core module $guest
  (import "libc" "memory" (memory 4))
  (import "calls" "save-labelled" (func $save (param i32 i32) (result i32)))
  (func (export "attack") (local $i i32) (local $at i32)
    (memory.fill (i32.const 100000) (i32.const 97) (i32.const 100000))
    (local.set $at (i32.const 4096))
    (loop $more
      (i32.store (local.get $at) (i32.const 100000))
      (i32.store offset=4 (local.get $at) (i32.const 100000))
      (i32.store offset=8 (local.get $at) (i32.const 100000))
      (i32.store offset=12 (local.get $at) (i32.const 100000))
      (local.set $at (i32.add (local.get $at) (i32.const 16)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $i) (i32.const 1000))))
    (drop (call $save (i32.const 4096) (i32.const 1000)))))
