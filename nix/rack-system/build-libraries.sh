# Debian's libraries as they are, but without search paths that point into Debian's file system.
patchelf() { "$tools/lib/loader" --library-path "$tools/lib" "$tools/libexec/patchelf" "$@"; }
mkdir -p "$out/lib"
for file in "$content"/*; do
    name=${file##*/}
    cp "$file" "$out/lib/$name"
    chmod u+w "$out/lib/$name"
    case $name in
    # The dynamic loader has no search path, and patchelf can't read it.
    ld-linux*) ;;
    *) patchelf --remove-rpath "$out/lib/$name" ;;
    esac
    chmod 555 "$out/lib/$name"
done
