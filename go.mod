module github.com/oddcert/oddcert

go 1.26.0
