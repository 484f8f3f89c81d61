using System.CommandLine;
using System.Globalization;
using Cbd.Control.Verbs;
using Cbd.Memory;
using Cbd.Host;

namespace Cbd.Programs.Ctrl.Bench;

/// <summary>The verb bench: measures a backend through a blkdev of this process, or any NBD server.</summary>
internal static class BenchVerb
{
    public static Verb Create()
    {
        var transport = VerbOptions.NumberOr("--transport", "-t", "the transport", 0);
        var backend = VerbOptions.Number("--backend", "-b", "the backend to measure, through a blkdev of this process");
        var nbd = VerbOptions.Text("--nbd", null, "the NBD server to measure instead: nbd+unix:///NAME?socket=PATH or nbd://HOST:PORT/NAME", "URI");
        var pattern = VerbOptions.Choice("--rw", null, "what to do", "randread", "read", "write", "randread", "randwrite", "randrw");
        var blockSize = VerbOptions.Size("--bs", "bytes of one request; 4K by default");
        var depth = VerbOptions.NumberOr("--iodepth", null, "requests in flight of one job", 1);
        var jobs = VerbOptions.NumberOr("--numjobs", null, "threads, each with a queue and a part of the device of its own", 1);
        var runTime = Seconds("--runtime", "seconds to measure", "5");
        var rampTime = Seconds("--ramp-time", "seconds to run before measuring", "0");
        var size = VerbOptions.Size("--size", "bytes of the device to use, from its start; all by default");
        var think = VerbOptions.NumberOr("--thinktime", null, "µs to pause after each request", 0);
        var verify = VerbOptions.Flag("--verify", null, "fill what is written so that it can be told, read it back at the end and compare");
        var overwrite = VerbOptions.Flag("--overwrite", null, "what is on the device may be lost; needed to write");
        var mode = VerbOptions.Choice("--mode", null, "how the jobs wait", PollModeText.Adaptive, PollModeText.Adaptive, PollModeText.Busy, PollModeText.Sleep);
        var output = CommonOptions.Output();
        var command = new Command("bench", "Measure a backend in-process, or an NBD server; with fio's options")
        {
            transport, backend, nbd, pattern, blockSize, depth, jobs, runTime, rampTime, size, think, verify, overwrite, mode, output,
        };
        return new Verb(command, (line, control, text) =>
        {
            var options = new BenchOptions
            {
                Pattern = line.GetValue(pattern)!,
                BlockBytes = line.GetValue(blockSize) ?? 4096,
                Depth = line.GetValue(depth),
                Jobs = line.GetValue(jobs),
                RunTime = line.GetValue(runTime),
                RampTime = line.GetValue(rampTime),
                SizeBytes = line.GetValue(size),
                ThinkMicroseconds = line.GetValue(think),
                Verify = line.GetValue(verify),
                Mode = PollModeText.Parse(line.GetValue(mode)!),
            };
            options.Check();
            if (options.Writes && !line.GetValue(overwrite))
                throw new CbdException(CbdErrorKind.Denied, $"--rw {options.Pattern} overwrites what is on the device: say --overwrite if it may be lost");
            using BenchTarget target = Open(line.GetValue(nbd), line.GetValue(backend), line.GetValue(transport), options, control);
            BenchReport report = BenchRun.Execute(options, target, text.Progress);
            text.Format = line.GetValue(output);
            text.Object(report, BenchJson.Readable.BenchReport, report.Rows());
        });
    }

    private static BenchTarget Open(string? nbd, int? backend, int transport, BenchOptions options, IControl control)
    {
        if (nbd is null == backend is null)
            throw new CbdException(CbdErrorKind.Invalid, "give one of --backend and --nbd");
        if (nbd is not null)
            return new NbdTarget(nbd);
        return new BackendTarget(control, transport, backend!.Value, options.Jobs, readOnly: !options.Writes);
    }

    private static Option<TimeSpan> Seconds(string name, string description, string otherwise) => new(name)
    {
        Description = $"{description}; {otherwise} by default",
        HelpName = "SECONDS",
        Arity = ArgumentArity.ExactlyOne,
        DefaultValueFactory = _ => TimeSpan.FromSeconds(double.Parse(otherwise, CultureInfo.InvariantCulture)),
        CustomParser = result =>
        {
            string text = result.Tokens[0].Value;
            if (double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double seconds) && seconds <= 86400)
                return TimeSpan.FromSeconds(seconds);
            result.AddError($"{name} is '{text}', which is not a number of seconds up to 86400");
            return default;
        },
    };
}
