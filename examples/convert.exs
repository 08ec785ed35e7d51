# Converts an image that a stranger has uploaded, with a program that may read this one file and write one other.
#
#     mix run examples/convert.exs                  # with an image of its own
#     mix run examples/convert.exs IN.png OUT.jpg
#
# Converters are large, and their formats can do much: refer to other files, to addresses in the network, to programs. Here
# GraphicsMagick, ImageMagick or ffmpeg, whichever is installed, gets the upload, the place for the result, the system's
# libraries, and nothing else: no other file, no network, no other process, a gigabyte of memory and 30 seconds.

defmodule Convert do
  @programs [
    {"gm", ["convert"]},
    {"magick", []},
    {"convert", []},
    {"ffmpeg", ["-nostdin", "-loglevel", "error", "-y", "-i"]}
  ]

  @doc "The converter that is installed, and its first arguments; `nil` when there is none."
  def program do
    Enum.find_value(@programs, fn {name, args} ->
      # What a script below somebody's home stands for could not be executed in the sandbox.
      path = Enum.find(["/usr/bin/#{name}", "/usr/local/bin/#{name}"], &File.exists?/1)
      path && {path, args}
    end)
  end

  @doc "Converts a file to the format that the name of the other one says."
  def run({program, args}, input, output) do
    # What a sandbox names has to be there.
    File.write!(output, "")

    result =
      NetRunner.capture([program | args] ++ [input, output],
        sandbox: [read: [:system, input], write: [output], processes: :own, tmp: :private],
        clear_env: true,
        rlimits: [as: 1_000_000_000, fsize: 200_000_000, core: 0],
        timeout: 30_000,
        max_output_size: 100_000
      )

    with {:error, _} = error <- converted(result, output) do
      # Nothing, or a part of it.
      File.rm!(output)
      error
    end
  end

  defp converted({:ok, %{outcome: :ended, status: 0}}, output), do: {:ok, output}
  defp converted({:ok, %{outcome: :ended} = result}, _), do: {:error, String.trim(result.stderr)}
  defp converted({:ok, %{outcome: why}}, _), do: {:error, "stopped: #{inspect(why)}"}
  defp converted({:error, {:sandbox, sentence}}, _), do: {:error, "not started: #{sentence}"}
  defp converted({:error, reason}, _), do: {:error, "not started: #{inspect(reason)}"}
end

directory = Path.join(System.tmp_dir!(), "convert_#{System.pid()}")
File.mkdir_p!(directory)

# 64 times 64 pixels from black to yellow (PPM, a format that every converter reads).
ppm = fn -> ["P6 64 64 255\n", for(y <- 0..63, x <- 0..63, do: <<x * 4, y * 4, 0>>)] end

# Whether another picture has a row of it, in samples of one byte or of two.
stolen? = fn path ->
  row = fn bytes ->
    for x <- 0..63, sample <- [x * 4, 128, 0], into: "", do: String.duplicate(<<sample>>, bytes)
  end

  String.contains?(File.read!(path), [row.(1), row.(2)])
end

try do
  case {Convert.program(), System.argv()} do
    {nil, _} ->
      IO.puts("No converter is installed: neither GraphicsMagick, ImageMagick nor ffmpeg.")

    {program, [input, output]} ->
      IO.inspect(Convert.run(program, Path.expand(input), Path.expand(output)))

    {{path, _} = program, []} ->
      IO.puts("== An image, with #{path}")
      upload = Path.join(directory, "upload.ppm")
      File.write!(upload, ppm.())

      with {:ok, output} <- Convert.run(program, upload, Path.join(directory, "result.png")) do
        <<0x89, "PNG", _::binary>> = File.read!(output)
        IO.puts("PNG, #{File.stat!(output).size} bytes")
      else
        {:error, sentence} -> IO.puts("failed: " <> sentence)
      end

      # Some converters put another file of the machine into the picture, when an SVG file asks for it.
      IO.puts("== An image that refers to a secret")
      secret = Path.join(directory, "secret.ppm")
      File.write!(secret, ppm.())
      picture = Path.join(directory, "picture.svg")

      File.write!(picture, """
      <svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="64" height="64">
        <image xlink:href="#{secret}" width="64" height="64"/>
      </svg>
      """)

      case Convert.run(program, picture, Path.join(directory, "stolen.ppm")) do
        {:ok, output} ->
          IO.puts("converted, #{if stolen?.(output), do: "WITH", else: "without"} the secret")

        {:error, sentence} ->
          IO.puts("failed: " <> sentence)
      end

    {_, _} ->
      IO.puts("Give two files, IN and OUT, or none.")
  end
after
  File.rm_rf!(directory)
end
