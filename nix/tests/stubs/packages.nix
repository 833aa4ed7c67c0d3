# Packages that are newer than the oldest tree that the modules are evaluated with.
[
  "emptyDirectory"
  "shellcheck"
  "android-tools"
  "headscale"
  "nvidia-container-toolkit"
  "nvidia-mig-parted"
  "raspberrypi-armstubs"
  "ubootRaspberryPi4_64bit"
]
