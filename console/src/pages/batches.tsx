// How far batches are: a table on the page of usage.

import { query } from "../api";
import { useLoaded } from "../context";
import { count, moment, plural } from "../format";
import { Bar, number, Table, Trouble } from "../parts";
import type { BatchList, BatchProgress } from "../types";

const SHOWN = 50;
const RUNNING = ["validating", "in_progress", "finalizing", "cancelling"];

/** The newest batches of a tenant, or of all; nothing where there are none. */
export function Batches({ tenant, withTenant }: { tenant: string; withTenant: boolean }) {
  const { data, error, reload } = useLoaded((api, signal) => api.get<BatchList>(`/batches${query({ tenant, limit: `${SHOWN}` })}`, signal), 5_000, tenant);
  if (error) return <Trouble text={error} retry={reload} />;
  if (!data || data.data.length === 0) return null;
  const running = data.data.filter((batch) => RUNNING.includes(batch.status)).length;
  return (
    <section aria-labelledby="batches-title">
      <h2 id="batches-title">
        Batches <small>{running ? `${plural(running, "batch", "batches")} not ended` : "all have ended"}, the newest first</small>
      </h2>
      <Table label="Batches" columns={["Batch", withTenant && "Tenant", "Status", "Answered", number("Lines"), number("Failed"), "Made"]}>
        {data.data.map((batch) => (
          <Row key={batch.id} batch={batch} withTenant={withTenant} />
        ))}
      </Table>
    </section>
  );
}

function Row({ batch, withTenant }: { batch: BatchProgress; withTenant: boolean }) {
  const { total, completed, failed } = batch.request_counts;
  return (
    <tr>
      <th scope="row">{batch.id}</th>
      {withTenant && <td>{batch.tenant}</td>}
      <td>
        {batch.status.replace("_", " ")}
        {batch.reason && <span class="muted"> {batch.reason}</span>}
      </td>
      <td>
        <Bar value={completed + failed} of={Math.max(1, total)} label={`lines of ${batch.id} that are answered`} /> <span class="tabular">{count(completed + failed)}</span>
      </td>
      <td class="n">{count(total)}</td>
      <td class="n">{count(failed)}</td>
      <td>{moment(batch.created_at)}</td>
    </tr>
  );
}
