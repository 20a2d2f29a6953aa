/*
 * SqueezeNet v1.1 as a model directory, made of links to the test data; skips the
 * running test where the data is not there.
 */
#ifndef SAC_TESTS_SQUEEZENET_H
#define SAC_TESTS_SQUEEZENET_H

/* A fresh folder with deploy.prototxt, the weights, synset_words.txt and a
 * model.json of this text. Lives until the program ends. */
const char *sac_test_squeezenet(const char *model_json);

#endif
