;; Traps with a writer that it has not written to.
(core module $guest
  (import "calls" "open" (func $open (result i32)))
  (func (export "attack") (drop (call $open)) unreachable))
