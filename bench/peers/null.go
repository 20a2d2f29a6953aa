// The smallest handler on Go's net/http, which GPU REST Engine's server uses:
// what a null request costs there. Built and run by bench/http.
package main

import (
	"log"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/api/null", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
