package possession

// maxKeys bounds the keys that a Prover remembers, over both generations, at some
// 2 KiB each, 4 KiB for the longest.
const maxKeys = 1 << 10
