;; Finishes a writer twice.
(core module $guest
  (import "calls" "open" (func $open (result i32)))
  (import "calls" "finish" (func $finish (param i32) (result i32)))
  (func (export "attack") (local $writer i32)
    (local.set $writer (call $open))
    (drop (call $finish (local.get $writer)))
    (drop (call $finish (local.get $writer)))))
