;; A job without an end, to be taken back from. `endless.wasm` is made of it.
(component
  (core module $main
    (func (export "run") (result i32)
      (loop $on (br $on))
      unreachable))
  (core instance $main (instantiate $main))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))
