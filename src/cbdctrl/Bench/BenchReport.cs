using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using Cbd.Control.Verbs;
using HdrHistogram;

namespace Cbd.Programs.Ctrl.Bench;

/// <summary>What a run measured: the JSON of bench. Latencies are µs, rates per second, MB are 10^6 bytes.</summary>
internal sealed record BenchReport
{
    public required string Target { get; init; }
    public required string Mode { get; init; }
    public required string Rw { get; init; }
    public required long BlockSize { get; init; }
    public required int Iodepth { get; init; }
    public required int Numjobs { get; init; }
    public required double RuntimeS { get; init; }
    public required long Ios { get; init; }
    public required long Errors { get; init; }
    public required double Iops { get; init; }
    public required double MbPerS { get; init; }
    public required BenchLatencies LatencyUs { get; init; }
    public required IReadOnlyList<BenchPercentile> Percentiles { get; init; }
    public required BenchCpu Cpu { get; init; }

    /// <summary>Managed memory allocated per request by the threads that drive the requests here.</summary>
    public required double BytesAllocatedPerIo { get; init; }

    /// <summary>The same of the handler threads; null where they cannot be asked.</summary>
    public double? ServerBytesAllocatedPerIo { get; init; }

    /// <summary>What a person reads.</summary>
    public IEnumerable<(string Name, string Value)> Rows()
    {
        yield return ("target", Target);
        yield return ("work", $"{Rw}, {VerbOutput.Size(BlockSize)} at depth {Iodepth}, {Numjobs} job(s), mode {Mode}, {Text(RuntimeS)} s");
        yield return ("rate", $"{Text(Iops)} IOPS, {Text(MbPerS)} MB/s");
        yield return ("latency", $"mean {Text(LatencyUs.Mean)} µs, p50 {Text(LatencyUs.P50)}, p90 {Text(LatencyUs.P90)}, p99 {Text(LatencyUs.P99)}, p99.9 {Text(LatencyUs.P999)}, max {Text(LatencyUs.Max)}");
        yield return ("CPU", Cpu.ServerPercent is { } server ? $"{Text(Cpu.ClientPercent)} % here, {Text(server)} % there" : $"{Text(Cpu.ClientPercent)} % here");
        yield return ("allocated", ServerBytesAllocatedPerIo is { } there
            ? $"{Text(BytesAllocatedPerIo)} bytes per request here, {Text(there)} there"
            : $"{Text(BytesAllocatedPerIo)} bytes per request here");
    }

    private static string Text(double number) => number.ToString("#,0.####", CultureInfo.InvariantCulture);
}

internal sealed record BenchLatencies(double Min, double Mean, double P50, double P90, double P99, [property: JsonPropertyName("p99_9")] double P999, double Max)
{
    public static BenchLatencies From(HistogramBase histogram) => histogram.TotalCount == 0
        ? new BenchLatencies(0, 0, 0, 0, 0, 0, 0)
        : new BenchLatencies(
            histogram.RecordedValues().First().ValueIteratedTo / 1000.0,
            Math.Round(histogram.GetMean() / 1000.0, 3),
            At(histogram, 50),
            At(histogram, 90),
            At(histogram, 99),
            At(histogram, 99.9),
            histogram.GetMaxValue() / 1000.0);

    internal static double At(HistogramBase histogram, double percentile) => histogram.GetValueAtPercentile(percentile) / 1000.0;
}

internal sealed record BenchPercentile(double Percentile, double LatencyUs)
{
    private static readonly double[] s_points =
    [
        1, 5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 96, 97, 98, 99, 99.25, 99.5, 99.75, 99.9, 99.95, 99.99, 99.995, 99.999, 99.9999,
    ];

    public static IReadOnlyList<BenchPercentile> From(HistogramBase histogram) => histogram.TotalCount == 0
        ? []
        : [.. s_points.Select(p => new BenchPercentile(p, BenchLatencies.At(histogram, p)))];
}

/// <summary>CPU time of this process and of the serving side, percent of one CPU; null where it cannot be known.</summary>
internal sealed record BenchCpu(double ClientPercent, double? ServerPercent);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, WriteIndented = true)]
[JsonSerializable(typeof(BenchReport))]
internal sealed partial class BenchJson : JsonSerializerContext
{
    /// <summary>Texts as they are: it is not HTML.</summary>
    public static BenchJson Readable => Variants.Readable;

    /// <summary>Apart, because it is made from <see cref="Default"/>, which must be there first.</summary>
    private static class Variants
    {
        public static readonly BenchJson Readable = new(new JsonSerializerOptions(Default.Options) { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
    }
}
