# What the activation links into /etc.
mkdir -p "$out/etc/ssh/authorized_keys.d" "$out/etc/nix"
cd "$out/etc"
printf '%s\n' "$hostName" >hostname
printf '%s\n' "$generation" >undercroft-generation
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$hostName" >hosts
printf 'root:x:0:0:root:/root:/bin/sh\n' >passwd
printf 'root:x:0:\n' >group
# No password is valid: only keys open this machine.
printf 'root:*:19000::::::\n' >shadow
chmod 400 shadow
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >nsswitch.conf
printf 'NAME="Undercroft rack system"\nID=undercroft-rack\nPRETTY_NAME="Undercroft rack system %s (Debian packages in the shape of NixOS)"\nVERSION_ID=%s\n' \
    "$version" "$version" >os-release
printf 'build-users-group =\nexperimental-features = nix-command flakes\nsubstituters =\nsandbox = false\n' >nix/nix.conf
printf '%s\n' "$authorizedKeys" >ssh/authorized_keys.d/root
cp "$inittab" inittab
