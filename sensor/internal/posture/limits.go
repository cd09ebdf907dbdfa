package posture

// MaxLeaves is how many certificates of a server its posture looks at: a proxy that
// makes one for each name has any number. The rest is counted.
const MaxLeaves = 4096
