# Packages that are newer than the oldest tree that the modules are evaluated with.
[
]
