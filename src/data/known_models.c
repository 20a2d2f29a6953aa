/*
 * One table. Every fact is from the page that the line names, as it stood when the
 * table was written; sums that the page lacks are from who else published them:
 * OpenCV (opencv_extra, testdata/dnn/download_models.py) and MXNet's Caffe converter.
 */
#include "data/known_models.h"

#include <string.h>

#define OPENCV "OpenCV's list of test models"
#define MXNET "MXNet's Caffe converter"
#define OWN "its page"

const struct sac_known_model sac_known_models[] = {
    {
        .name = "alexnet",
        .title = "BVLC AlexNet",
        .weights = 60965224,
        .file = "bvlc_alexnet.caffemodel",
        .url = "http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel",
        .page = "https://github.com/BVLC/caffe/tree/master/models/bvlc_alexnet",
        .sha1 = "9116a64c0fbe4459d18f4bb6b56d647b63920377",
        .sum_from = OWN,
        .license = "unrestricted",
        .top1 = 57.1,
        .top5 = 80.2,
    },
    {
        .name = "caffenet",
        .title = "BVLC reference CaffeNet",
        .weights = 60965224,
        .file = "bvlc_reference_caffenet.caffemodel",
        .url = "http://dl.caffe.berkeleyvision.org/bvlc_reference_caffenet.caffemodel",
        .page = "https://github.com/BVLC/caffe/tree/master/models/bvlc_reference_caffenet",
        .sha1 = "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
        .sum_from = OWN,
        .license = "unrestricted",
        .top1 = 57.4,
        .top5 = 80.4,
    },
    {
        .name = "googlenet",
        .title = "BVLC GoogLeNet",
        .weights = 13378280, /* with the two classifiers that only training has */
        .file = "bvlc_googlenet.caffemodel",
        .url = "http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
        .page = "https://github.com/BVLC/caffe/tree/master/models/bvlc_googlenet",
        .sha1 = "405fc5acd08a3bb12de8ee5e23a96bec22f08204",
        .sum_from = OWN,
        .license = "unrestricted",
        .top1 = 68.7,
        .top5 = 88.9,
    },
    {
        .name = "mobilenet",
        .title = "MobileNet v1, by Shicai Yang",
        .weights = 4253891,
        .file = "mobilenet.caffemodel",
        .url = "https://raw.githubusercontent.com/shicai/MobileNet-Caffe/"
               "a0b0c46152e658559956158d7c2bf42bb029c09e/mobilenet.caffemodel",
        .page = "https://github.com/shicai/MobileNet-Caffe",
        .sha256 = "8d6edcd3",
        .sum_from = OWN ", which has eight digits",
        .license = "BSD-3-Clause",
        .top1 = 70.81,
        .top5 = 89.85,
    },
    {
        .name = "nin",
        .title = "Network in Network, by Min Lin",
        .weights = 7595176,
        .file = "nin_imagenet.caffemodel",
        .url = "https://www.dropbox.com/s/0cidxafrb2wuwxw/nin_imagenet.caffemodel?dl=1",
        .page = "https://gist.github.com/mavenlin/d802a5849de39225bcc6",
        .sha1 = "8e89c8fcd46e02780e16c867a5308e7bb7af0803",
        .sum_from = OWN ", in an earlier version",
        .license = "BSD (non-commercial in an earlier version of its page)",
        .top1 = 59.36,
    },
    {
        .name = "resnet50",
        .title = "ResNet-50 v1, by Kaiming He",
        .weights = 25610269,
        .file = "ResNet-50-model.caffemodel",
        .page = "https://github.com/KaimingHe/deep-residual-networks",
        .sha1 = "b7c79ccc21ad0479cddc0dd78b1d20c4d722908d",
        .sum_from = OPENCV,
        .license = "see its page",
        .top1 = 75.3,
        .top5 = 92.2,
    },
    {
        .name = "squeezenet",
        .title = "SqueezeNet v1.1, by DeepScale",
        .weights = 1235496,
        .file = "squeezenet_v1.1.caffemodel",
        .url = "https://raw.githubusercontent.com/DeepScale/SqueezeNet/"
               "b5c3f1a23713c8b3fd7b801d229f6b04c64374a5/SqueezeNet_v1.1/"
               "squeezenet_v1.1.caffemodel",
        .page = "https://github.com/DeepScale/SqueezeNet",
        .sha1 = "3397f026368a45ae236403ccc81cfcbe8ebe1bd0",
        .sum_from = OPENCV,
        .license = "BSD-2-Clause",
        .top1 = 57.5,
        .top5 = 80.3,
        .measured = "with v1.0 (arXiv:1602.07360), whose accuracy v1.1 is said to keep",
    },
    {
        .name = "vgg16",
        .title = "VGG with 16 layers, by Oxford's Visual Geometry Group",
        .weights = 138357544,
        .file = "VGG_ILSVRC_16_layers.caffemodel",
        .url = "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/"
               "VGG_ILSVRC_16_layers.caffemodel",
        .page = "https://gist.github.com/ksimonyan/211839e770f7b538e2d8",
        .sha1 = "9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24",
        .sum_from = OPENCV,
        .license = "see http://www.robots.ox.ac.uk/~vgg/research/very_deep/",
        .top5 = 91.9,
        .measured = "densely, shorter side 384",
    },
    {
        .name = "vgg19",
        .title = "VGG with 19 layers, by Oxford's Visual Geometry Group",
        .weights = 143667240,
        .file = "VGG_ILSVRC_19_layers.caffemodel",
        .url = "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/"
               "VGG_ILSVRC_19_layers.caffemodel",
        .page = "https://gist.github.com/ksimonyan/3785162f95cd2d5fee77",
        .sha1 = "239785e7862442717d831f682bb824055e51e9ba",
        .sum_from = MXNET,
        .license = "see http://www.robots.ox.ac.uk/~vgg/research/very_deep/",
    },
    {
        .name = "vgg_cnn_s",
        .title = "VGG_CNN_S, by Oxford's Visual Geometry Group",
        .weights = 102908520,
        .file = "VGG_CNN_S.caffemodel",
        .url = "http://www.robots.ox.ac.uk/~vgg/software/deep_eval/releases/bvlc/"
               "VGG_CNN_S.caffemodel",
        .page = "https://gist.github.com/ksimonyan/fd8800eeb36e276cd6f9",
        .sha1 = "862b3744bce69b7ba90d29b8099aed3b00c8580b",
        .sum_from = "a public program that fetches it",
        .license = "non-commercial use only",
        .mean_url = "http://www.robots.ox.ac.uk/~vgg/software/deep_eval/releases/bvlc/"
                    "VGG_mean.binaryproto",
    },
    {0}};

/* Where the file was found whose sum stands below, and OpenCV's copy. */
const char *const sac_imagenet_labels_urls[] = {
    "https://github.com/ethanhe42/caffe-pro/raw/4465d1e/data/ilsvrc12/synset_words.txt",
    "https://raw.githubusercontent.com/opencv/opencv/3.3.1/samples/data/dnn/synset_words.txt",
    0,
};
const char sac_imagenet_labels_sha256[] =
    "acf75ef0abe89694b19056e0796401068b459c457baa30335f240c7692857355";

const struct sac_known_model *sac_known_model_find(const char *name)
{
    for (const struct sac_known_model *model = sac_known_models; model->name; model++)
        if (strcmp(model->name, name) == 0)
            return model;
    return NULL;
}

const struct sac_model_definition *sac_model_definition_of(const char *name)
{
    for (const struct sac_model_definition *one = sac_model_definitions; one->name; one++)
        if (strcmp(one->name, name) == 0)
            return one;
    return NULL;
}
