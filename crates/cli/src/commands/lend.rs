//! `undercroft lend`: what PCs lend, and who asks them for it. One file a command, in `lend/`.
