# Fits one data set with one R package and prints plain numbers, one item a line: its name, then its values.
#
# Usage: Rscript peers.R PROGRAM N D K TOLERANCE MAX_ITER DATA_FILE
#   PROGRAM    flexmix, or hmeEM (mixtools: two experts, one feature)
#   DATA_FILE  little-endian doubles, column by column: the features, the target, the responsibilities of the start;
#              then the parameters after one M-step from them: gate (1 + d by k), experts (1 + d by k), scales (k)
#
# The time is the user and system time of the fit alone, without start-up of R, loading and reading.

arguments <- commandArgs(TRUE)
program <- arguments[1]
n <- as.integer(arguments[2])
d <- as.integer(arguments[3])
k <- as.integer(arguments[4])
tolerance <- as.numeric(arguments[5])
max_iter <- as.integer(arguments[6])

connection <- file(arguments[7], "rb")
read_matrix <- function(rows, columns) {
  matrix(readBin(connection, "double", rows * columns, endian = "little"), rows, columns)
}
x <- read_matrix(n, d)
y <- read_matrix(n, 1)[, 1]
responsibilities <- read_matrix(n, k)
gate <- read_matrix(1 + d, k)
experts <- read_matrix(1 + d, k)
scale <- read_matrix(1, k)[1, ]
close(connection)

features <- paste0("x", seq_len(d))
colnames(x) <- features
data <- data.frame(x, y = y)
set.seed(1)

if (program == "flexmix") {
  suppressPackageStartupMessages(library(flexmix))
  seconds <- system.time(
    fitted <- flexmix(
      reformulate(features, "y"), data = data, k = k, cluster = responsibilities,
      concomitant = FLXPmultinom(reformulate(features)),
      control = list(iter.max = max_iter, tolerance = tolerance, minprior = 0)
    )
  )
  iterations <- fitted@iter
  converged <- fitted@converged
  reported <- as.numeric(logLik(fitted))
  regression <- parameters(fitted)
  experts <- regression[seq_len(1 + d), , drop = FALSE]
  scale <- regression[2 + d, ]
  gate <- parameters(fitted, which = "concomitant")
  package <- "flexmix"
} else if (program == "hmeEM") {
  stopifnot(k == 2, d == 1)
  suppressPackageStartupMessages(library(mixtools))
  # hmeEM stops at an absolute change of the log-likelihood; its size at the start turns the relative tolerance into one.
  log_density <- sapply(1:2, function(i) dnorm(y, experts[1, i] + experts[2, i] * x, scale[i], log = TRUE))
  weight <- plogis(gate[1, 1] + gate[2, 1] * x[, 1])
  at_start <- sum(log(weight * exp(log_density[, 1]) + (1 - weight) * exp(log_density[, 2])))
  seconds <- system.time(capture.output(
    fitted <- hmeEM(
      y, x, beta = experts, sigma = scale, w = gate[, 1], k = 2, epsilon = tolerance * abs(at_start), maxit = max_iter
    )
  ))
  iterations <- length(fitted$all.loglik) - 1
  converged <- iterations < max_iter
  reported <- fitted$loglik
  experts <- fitted$beta
  scale <- fitted$sigma
  gate <- cbind(as.numeric(fitted$w), 0)
  package <- "mixtools"
} else {
  stop("unknown program: ", program)
}

show <- function(name, values) cat(name, format(as.numeric(values), digits = 17, scientific = TRUE), "\n")
cat("version", as.character(packageVersion(package)), "\n")
show("cpu_seconds", seconds[["user.self"]] + seconds[["sys.self"]])
show("iterations", iterations)
show("converged", converged)
show("reported_log_likelihood", reported)
show("gate", gate)
show("experts", experts)
show("scale", scale)
