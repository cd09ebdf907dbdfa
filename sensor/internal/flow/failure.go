package flow

import (
	"fmt"
	"runtime/debug"
)

// Failure is a defect of the program that input has found: a panic that was
// caught, so that it costs one flow or one handshake, and kept, so that it can be
// reported.
type Failure struct {
	Where string // what failed: a five-tuple of a flow, or a step such as "match rules"
	Text  string // of the panic
	Stack string // of the goroutine, as [runtime/debug.Stack] has it
}

// NewFailure makes a Failure of what recover has returned. It must be called by
// the deferred function that recovers, while the stack is still that of the
// panic.
func NewFailure(cause any, where string) *Failure {
	return &Failure{Where: where, Text: fmt.Sprint(cause), Stack: string(debug.Stack())}
}
