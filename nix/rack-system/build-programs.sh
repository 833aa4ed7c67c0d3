# Programs that load their libraries, and the dynamic loader itself, from the store.
patchelf() { "$tools/lib/loader" --library-path "$tools/lib" "$tools/libexec/patchelf" "$@"; }
mkdir -p "$out/bin"
for file in "$content"/bin/*; do
    name=${file##*/}
    cp -P "$file" "$out/bin/$name"
    [ ! -h "$file" ] || continue
    chmod u+w "$out/bin/$name"
    # An RPATH, unlike a RUNPATH, also counts for the libraries that a library needs.
    patchelf --set-interpreter "$libraries/lib/$loader" --force-rpath \
        --set-rpath "$libraries/lib" "$out/bin/$name"
    chmod 555 "$out/bin/$name"
done
