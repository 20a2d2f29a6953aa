// GPU REST Engine's design on a CPU: Go's net/http in front, OpenCV's decoding,
// resizing and nets behind it. Built and run by bench/serve.
package main

/*
#include <stdlib.h>
#include "classify.h"
*/
import "C"

import (
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"unsafe"
)

func number(text string) C.int {
	value, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return C.int(value)
}

// ADDRESS DEPLOY WEIGHTS LABELS CONTEXTS SIDE
func main() {
	classifier := C.classifier_new(C.CString(os.Args[2]), C.CString(os.Args[3]),
		C.CString(os.Args[4]), number(os.Args[5]), number(os.Args[6]))
	if classifier == nil {
		log.Fatal("the net cannot be loaded")
	}
	http.HandleFunc("/api/classify", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || len(body) == 0 {
			http.Error(w, "no picture", http.StatusBadRequest)
			return
		}
		answer := C.classifier_run(classifier, unsafe.Pointer(&body[0]), C.ulong(len(body)))
		if answer == nil {
			http.Error(w, "not a picture", http.StatusBadRequest)
			return
		}
		defer C.free(unsafe.Pointer(answer))
		io.WriteString(w, C.GoString(answer))
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
