;; Drops a writer twice.
(core module $guest
  (import "calls" "open" (func $open (result i32)))
  (import "store" "drop-writer" (func $drop (param i32)))
  (func (export "attack") (local $writer i32)
    (local.set $writer (call $open))
    (call $drop (local.get $writer))
    (call $drop (local.get $writer))))
