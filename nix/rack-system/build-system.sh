# The toplevel: the same files in the same places as NixOS has them.
mkdir -p "$out/bin" "$out/sw/bin" "$out/libexec"
cd "$out"

fill() {
    sed -e "s,@out@,$out,g" -e "s,@busybox@,$busybox,g" -e "s,@modules@,$modules,g" \
        -e "s,@loader@,$loader,g" -e "s,@efi@,$efi,g" -e "s,@name@,$hostName,g" \
        -e "s,@secretsPrograms@,$secretsPrograms,g" -e "s,@secretsFiles@,$secretsFiles,g" \
        -e "s,@broken@,$broken,g" -e "s,@etc@,$etc,g" "$1" >"$2"
    chmod 555 "$2"
}
fill "$init" init
fill "$activate" activate
fill "$switch" bin/switch-to-configuration
fill "$installBoot" libexec/install-boot
fill "$start" libexec/start
fill "$sshd" libexec/sshd
fill "$openSecrets" libexec/open-secrets
fill "$dhcpEvent" libexec/dhcp-event

ln -s "$kernel/kernel" kernel
ln -s "$initrd/initrd" initrd
ln -s "$modules" kernel-modules
ln -s "$etc/etc" etc
for package in "$busybox" "$dropbear" "$nix"; do
    for file in "$package"/bin/*; do
        ln -s "$file" "sw/bin/${file##*/}"
    done
done

# A kernel that dies, or an init that ends, reboots the machine.
parameters="root=LABEL=nixos console=tty0 console=$console quiet loglevel=4 panic=10"
printf '%s' "$parameters" >kernel-params
printf '%s' "$version" >nixos-version
printf '%s' "$forSystem" >system
printf '3' >init-interface-version
list=
for word in $parameters; do list="$list${list:+,}\"$word\""; done
printf '{"org.nixos.bootspec.v1":{"init":"%s/init","initrd":"%s/initrd","kernel":"%s/kernel","kernelParams":[%s],"label":"Undercroft rack system %s (Linux %s)","system":"%s","toplevel":"%s"},"org.nixos.specialisation.v1":{}}\n' \
    "$out" "$initrd" "$kernel" "$list" "$version" "$release" "$forSystem" "$out" >boot.json
