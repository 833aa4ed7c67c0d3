;; A first job: it writes /in/text in capitals to /out/result. A component of WASI 0.2; `capitals.wasm` is made of it.
(component
  (import "wasi:filesystem/types@0.2.0" (instance $types
    (export "descriptor" (type $descriptor (sub resource)))
    (type $codes (enum
      "access" "would-block" "already" "bad-descriptor" "busy" "deadlock" "quota" "exist" "file-too-large"
      "illegal-byte-sequence" "in-progress" "interrupted" "invalid" "io" "is-directory" "loop" "too-many-links" "message-size" "name-too-long" "no-device" "no-entry" "no-lock" "insufficient-memory"
      "insufficient-space" "not-directory" "not-empty" "not-recoverable" "unsupported" "no-tty" "no-such-device" "overflow" "not-permitted" "pipe" "read-only" "invalid-seek" "text-file-busy" "cross-device"))
    (export "error-code" (type $error (eq $codes)))
    (type $path-bits (flags "symlink-follow"))
    (export "path-flags" (type $path-flags (eq $path-bits)))
    (type $open-bits (flags "create" "directory" "exclusive" "truncate"))
    (export "open-flags" (type $open-flags (eq $open-bits)))
    (type $descriptor-bits (flags "read" "write" "file-integrity-sync" "data-integrity-sync"
      "requested-write-sync" "mutate-directory"))
    (export "descriptor-flags" (type $descriptor-flags (eq $descriptor-bits)))
    (export "[method]descriptor.open-at" (func
      (param "self" (borrow $descriptor)) (param "path-flags" $path-flags) (param "path" string)
      (param "open-flags" $open-flags) (param "flags" $descriptor-flags)
      (result (result (own $descriptor) (error $error)))))
    (export "[method]descriptor.read" (func
      (param "self" (borrow $descriptor)) (param "length" u64) (param "offset" u64)
      (result (result (tuple (list u8) bool) (error $error)))))
    (export "[method]descriptor.write" (func
      (param "self" (borrow $descriptor)) (param "buffer" (list u8)) (param "offset" u64)
      (result (result u64 (error $error)))))))
  (alias export $types "descriptor" (type $descriptor))
  (import "wasi:filesystem/preopens@0.2.0" (instance $preopens
    (alias outer 1 $descriptor (type $outer))
    (export "descriptor" (type $descriptor (eq $outer)))
    (export "get-directories" (func (result (list (tuple (own $descriptor) string)))))))

  ;; What the host hands over lies from 4096 on, and is overwritten by what it hands over next.
  (core module $heap
    (memory (export "memory") 2)
    (global $next (export "next") (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $heap (instantiate $heap))
  (core func $folders (canon lower (func $preopens "get-directories")
    (memory $heap "memory") (realloc (func $heap "realloc"))))
  (core func $open (canon lower (func $types "[method]descriptor.open-at")
    (memory $heap "memory") (realloc (func $heap "realloc"))))
  (core func $read (canon lower (func $types "[method]descriptor.read")
    (memory $heap "memory") (realloc (func $heap "realloc"))))
  (core func $write (canon lower (func $types "[method]descriptor.write")
    (memory $heap "memory") (realloc (func $heap "realloc"))))

  (core module $main
    (import "heap" "memory" (memory 2))
    (import "heap" "next" (global $next (mut i32)))
    (import "wasi" "folders" (func $folders (param i32)))
    (import "wasi" "open" (func $open (param i32 i32 i32 i32 i32 i32 i32)))
    (import "wasi" "read" (func $read (param i32 i64 i64 i32)))
    (import "wasi" "write" (func $write (param i32 i32 i32 i64 i32)))
    (data (i32.const 256) "text")
    (data (i32.const 272) "result")
    ;; Opens the name of so many bytes at an address below a folder: the file's handle, or -1.
    (func $opened (param $folder i32) (param $at i32) (param $bytes i32) (param $how i32) (param $for i32)
      (result i32)
      (call $open (local.get $folder) (i32.const 0) (local.get $at) (local.get $bytes)
        (local.get $how) (local.get $for) (i32.const 80))
      (if (result i32) (i32.load8_u (i32.const 80))
        (then (i32.const -1))
        (else (i32.load (i32.const 84)))))
    ;; Makes so many bytes at an address capitals.
    (func $capitals (param $at i32) (param $bytes i32)
      (local $end i32) (local $byte i32)
      (local.set $end (i32.add (local.get $at) (local.get $bytes)))
      (block $done (loop $next-byte
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $byte (i32.load8_u (local.get $at)))
        (if (i32.lt_u (i32.sub (local.get $byte) (i32.const 97)) (i32.const 26))
          (then (i32.store8 (local.get $at) (i32.sub (local.get $byte) (i32.const 32)))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next-byte))))
    (func (export "run") (result i32)
      (local $in i32) (local $out i32) (local $offset i64)
      (call $folders (i32.const 64))
      (local.set $in (i32.load (i32.load (i32.const 64))))
      (local.set $out (i32.load offset=12 (i32.load (i32.const 64))))
      (local.set $in (call $opened (local.get $in) (i32.const 256) (i32.const 4) (i32.const 0) (i32.const 1)))
      (if (i32.lt_s (local.get $in) (i32.const 0)) (then (return (i32.const 1))))
      ;; Created, and emptied if it is there; for writing.
      (local.set $out (call $opened (local.get $out) (i32.const 272) (i32.const 6) (i32.const 9) (i32.const 2)))
      (if (i32.lt_s (local.get $out) (i32.const 0)) (then (return (i32.const 1))))
      (loop $more
        (global.set $next (i32.const 4096))
        (call $read (local.get $in) (i64.const 65536) (local.get $offset) (i32.const 96))
        (if (i32.load8_u (i32.const 96)) (then (return (i32.const 1))))
        (if (i32.load (i32.const 104)) (then
          (call $capitals (i32.load (i32.const 100)) (i32.load (i32.const 104)))
          (call $write (local.get $out) (i32.load (i32.const 100)) (i32.load (i32.const 104)) (local.get $offset)
            (i32.const 120))
          (if (i32.load8_u (i32.const 120)) (then (return (i32.const 1))))
          (local.set $offset (i64.add (local.get $offset) (i64.load (i32.const 128))))
          (br $more))))
      (i32.const 0)))
  (core instance $main (instantiate $main
    (with "heap" (instance $heap))
    (with "wasi" (instance
      (export "folders" (func $folders))
      (export "open" (func $open))
      (export "read" (func $read))
      (export "write" (func $write))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))
