package pcapfilter

const (
	// maxProgram is the most instructions that the kernel takes for one filter
	// (BPF_MAXINSNS of linux/bpf_common.h).
	maxProgram = 4096

	// maxExpression bounds an expression in bytes, and so how deep the recursion
	// of the parser goes.
	maxExpression = 64 << 10
)
