# Counts the failed requests in a compressed log, by path, in memory that does not grow with the log.
#
#     mix run examples/log_filter.exs                # with a log of its own
#     mix run examples/log_filter.exs ACCESS.log.gz
#
# gunzip and grep are joined by the kernel, so only the lines that matter come into the VM. They come as fast as they are counted:
# when the counting is slower, grep waits, and so does gunzip.

defmodule LogFilter do
  @doc "The paths of all requests with status 500, with their numbers, the most frequent first."
  def failed(path) do
    # grep exits with 1 when it finds nothing, and that is no failure here.
    grep = NetRunner.Command.new("grep", ["-E", "\"(GET|POST) [^\"]*\" 500 "], exit_status: :ignore)

    [["gunzip", "-c", path], grep]
    |> NetRunner.pipeline_stream!(lines: :trim)
    |> Stream.map(&path_of/1)
    |> Enum.frequencies()
    |> Enum.sort_by(fn {path, count} -> {-count, path} end)
  end

  defp path_of(line) do
    [_, request | _] = String.split(line, "\"")
    [_method, path | _] = String.split(request, " ")
    # The line is a part of a large chunk. The copy is not, so the chunk can be freed.
    :binary.copy(path)
  end

  @doc "Writes a log of so many requests. gzip reads the lines as they are made, and the kernel writes the file."
  def write(path, requests) do
    lines = Stream.map(1..requests, &line/1)
    {"", 0} = NetRunner.run(["gzip", "-1"], input: lines, stdout: {:file, path})
  end

  @paths {"/", "/login", "/cart", "/checkout", "/search"}
  defp line(n) do
    status = if rem(n, 97) == 0, do: 500, else: 200
    path = elem(@paths, rem(n, 5))

    ~s(10.0.0.#{rem(n, 250)} - - [01/Mar/2026:10:00:00 +0000] "GET #{path} HTTP/1.1" #{status} 512\n)
  end
end

show = fn counts ->
  for {path, count} <- Enum.take(counts, 10), do: IO.puts("#{path}: #{count}")
end

case System.argv() do
  [log] ->
    log |> Path.expand() |> LogFilter.failed() |> show.()

  [] ->
    log = Path.join(System.tmp_dir!(), "log_filter_#{System.pid()}.gz")

    try do
      LogFilter.write(log, 200_000)
      IO.puts("== Failed requests")
      log |> LogFilter.failed() |> show.()
    after
      File.rm(log)
    end
end
