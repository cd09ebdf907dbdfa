package httpsend

import "time"

const (
	// requestTimeout bounds a request with its answer: a server that sends one byte a
	// second would hold up delivery. Standard Webhooks ("Request timeouts") recommends
	// 15 to 30 s.
	requestTimeout = 30 * time.Second

	// maxAnswer bounds what is read of an answer: a server could send without end.
	maxAnswer = 1 << 20

	// maxHeader bounds the value of a header, and a secret: servers refuse longer ones.
	maxHeader = 8 << 10

	// maxCookies and maxCookie bound the cookies that are kept, and each of them.
	maxCookies = 16
	maxCookie  = 4 << 10
)
