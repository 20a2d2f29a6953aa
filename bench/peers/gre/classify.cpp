#include "classify.h"

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include <opencv2/dnn.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

namespace
{

struct Classifier {
    std::vector<std::string> labels;
    std::vector<cv::dnn::Net> nets;
    std::vector<cv::dnn::Net *> idle;
    std::mutex lock;
    std::condition_variable given_back;
    int side;
};

/* A context, for as long as the object lives. */
class Lease
{
  public:
    explicit Lease(Classifier &from) : from(from)
    {
        std::unique_lock<std::mutex> hold(from.lock);
        from.given_back.wait(hold, [&] { return !from.idle.empty(); });
        net = from.idle.back();
        from.idle.pop_back();
    }
    ~Lease()
    {
        std::lock_guard<std::mutex> hold(from.lock);
        from.idle.push_back(net);
        from.given_back.notify_one();
    }
    cv::dnn::Net *net;

  private:
    Classifier &from;
};

std::string answer(const Classifier &classifier, const cv::Mat &scores)
{
    const float *values = scores.ptr<float>();
    int count = std::min((int)scores.total(), (int)classifier.labels.size());
    std::vector<int> order(count);
    for (int i = 0; i < count; i++)
        order[i] = i;
    int top = std::min(count, 5);
    std::partial_sort(order.begin(), order.begin() + top, order.end(),
                      [&](int a, int b) { return values[a] > values[b]; });
    std::string out = "[";
    for (int i = 0; i < top; i++) {
        char number[32];
        std::snprintf(number, sizeof number, "%.4f", values[order[i]]);
        out += std::string(i ? "," : "") + "{\"confidence\":" + number + ",\"label\":\"" +
               classifier.labels[order[i]] + "\"}";
    }
    return out + "]";
}

} // namespace

void *classifier_new(const char *deploy, const char *weights, const char *labels, int contexts,
                     int side)
{
    try {
        auto *classifier = new Classifier;
        std::ifstream file(labels);
        for (std::string line; std::getline(file, line);)
            classifier->labels.push_back(line);
        cv::setNumThreads(1);
        classifier->side = side;
        for (int i = 0; i < contexts; i++)
            classifier->nets.push_back(cv::dnn::readNetFromCaffe(deploy, weights));
        for (auto &net : classifier->nets) {
            net.setPreferableBackend(cv::dnn::DNN_BACKEND_OPENCV);
            classifier->idle.push_back(&net);
        }
        return classifier;
    } catch (const std::exception &problem) {
        std::fprintf(stderr, "%s\n", problem.what());
        return nullptr;
    }
}

char *classifier_run(void *user, const void *bytes, unsigned long size)
{
    auto *classifier = (Classifier *)user;
    try {
        Lease lease(*classifier);
        cv::Mat raw(1, (int)size, CV_8U, (void *)bytes), picture, small;
        picture = cv::imdecode(raw, cv::IMREAD_COLOR);
        if (picture.empty())
            return nullptr;
        cv::resize(picture, small, cv::Size(classifier->side, classifier->side));
        lease.net->setInput(
            cv::dnn::blobFromImage(small, 1, cv::Size(), cv::Scalar(104, 117, 123)));
        return strdup(answer(*classifier, lease.net->forward()).c_str());
    } catch (const std::exception &problem) {
        std::fprintf(stderr, "%s\n", problem.what());
        return nullptr;
    }
}
